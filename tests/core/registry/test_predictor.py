import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from detector_core.errors import BrokenArtifact
from detector_core.evaluation.calibration import verdicts
from detector_core.images.preprocess import to_input
from detector_core.networks import artifacts
from detector_core.registry.predictor import Prediction, Predictor, blank_image, describe
from tests.support.models import SIZE, save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("runtime") / "tiny-v1")


def images(count: int) -> list[np.ndarray]:
    """Images of noise in several sizes, one of them the model's."""
    rng = np.random.default_rng(0)
    sizes = [(SIZE, SIZE), (64, 48), (20, 31)]
    return [rng.integers(0, 256, (*sizes[i % 3], 3), dtype=np.uint8) for i in range(count)]


def test_scores_match_the_network_on_the_same_input(model: Path) -> None:
    network, artifact = artifacts.load(model)
    with torch.inference_mode():
        expected = [network(to_input(image, artifact.spec.preprocess)[None]).item() for image in images(5)]
    predictions = Predictor(model, batch_size=2).predict(images(5))
    assert [prediction.logit for prediction in predictions] == pytest.approx(expected, abs=1e-4)
    assert [prediction.p_fake for prediction in predictions] == pytest.approx(
        [1 / (1 + np.exp(-logit / 2.0)) for logit in expected], abs=1e-4
    )


def test_a_prepared_square_scores_as_its_image(model: Path) -> None:
    from detector_core.images.preprocess import square

    predictor = Predictor(model)
    whole = images(3)
    squares = [square(image, predictor.info.preprocess) for image in whole]
    assert [p.logit for p in predictor.predict(whole)] == [p.logit for p in predictor.predict(squares)]


def test_no_images_give_no_predictions(model: Path) -> None:
    assert Predictor(model).predict([]) == []


def test_verdict_and_confidence_follow_the_thresholds(model: Path) -> None:
    predictor = Predictor(model)
    (prediction,) = predictor.predict([blank_image(predictor.info)])
    calibration = predictor.info.calibration
    assert prediction.verdict == str(verdicts([prediction.p_fake], calibration)[0])
    cases = {"real": 0.8, "fake": 0.2, "uncertain": 0.8}
    for verdict, confidence in cases.items():
        prediction = Prediction(p_fake=0.2, logit=0.0, verdict=verdict, model=predictor.info)
        assert prediction.confidence == pytest.approx(confidence)


def test_describe_reads_the_model_folder(model: Path) -> None:
    info = describe(model)
    assert (info.name, info.version, info.data, info.generated) == ("tiny", "tiny-v1", "data d1", True)
    assert info.sha256 == artifacts.read(model).weights_sha256
    assert info.test_metrics[0]["auc"] == 0.9
    assert info.test_metrics[0]["images"] == 100
    half = info.test_metrics[0]["flag_value"][-1]
    assert (half["share_of_fakes"], half["value"]) == (0.5, pytest.approx(0.9)), "45 of 50 fakes and 5 of 50 reals"
    assert 0.7 < half["low"] < 0.9 < half["high"] < 1
    assert dataclasses.is_dataclass(info.preprocess)


def test_a_network_with_scores_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "nan")
    network, artifact = artifacts.load(folder)
    weights = {
        name: torch.full_like(value, torch.nan) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    artifacts.save(tmp_path / "broken", weights, artifact)
    with pytest.raises(BrokenArtifact, match="not finite"):
        Predictor(tmp_path / "broken")
