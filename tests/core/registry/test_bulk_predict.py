"""A verdict for each image, in order, and an error for each file that cannot be read."""

import errno
from pathlib import Path

import pytest

from detector_core import storage
from detector_core.errors import BadData
from detector_core.images.preprocess import decode
from detector_core.registry import versions
from detector_core.registry.bulk_predict import BATCH, predict_files
from detector_core.registry.predictor import Predictor
from tests.conftest import image_bytes
from tests.support.models import save_model


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predicting")
    versions.promote(save_model(folder / "model"), folder / "models")
    return versions.live(folder / "models")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few more than a batch, read only."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(BATCH + 3):
        (folder / f"{number:02}.jpg").write_bytes(image_bytes(number, "fake" if number % 2 else "real"))
    (folder / "damaged.jpg").write_bytes(image_bytes(0, "real")[:300])
    return folder


def test_each_image_gets_the_verdict_of_the_service_in_order(version: Path, images: Path) -> None:
    paths = sorted((path.name for path in images.glob("[0-9]*.jpg")), reverse=True)
    table = predict_files(str(version), "cpu", str(images), paths)
    expected = Predictor(version).predict([decode((images / path).read_bytes()) for path in paths])
    assert table["path"].tolist() == paths
    assert table["verdict"].tolist() == [prediction.verdict for prediction in expected]
    assert table["p_fake"].tolist() == pytest.approx([prediction.p_fake for prediction in expected], abs=1e-3)
    assert table["logit"].tolist() == pytest.approx([prediction.logit for prediction in expected], abs=1e-3)
    assert table["error"].isna().all()


def test_a_file_that_cannot_be_read_gets_an_error_and_the_rest_continues(
    version: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = storage.read_bytes

    def refuse(path: str) -> bytes:
        if path.endswith("00.jpg"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(path)

    monkeypatch.setattr(storage, "read_bytes", refuse)
    table = predict_files(str(version), "cpu", str(images), ["00.jpg", "damaged.jpg", "gone.jpg", "01.jpg"])
    refused, damaged, missing, intact = table["error"]
    assert refused == "the file cannot be opened: Permission denied"
    assert damaged.startswith("damaged image: ")
    assert missing.startswith("the file cannot be opened: ")
    assert missing.endswith("No such file or directory")
    assert intact is None or intact != intact
    assert table["verdict"].notna().tolist() == table["p_fake"].notna().tolist() == [False] * 3 + [True]


def test_a_failing_disk_stops_the_run_and_names_the_remedy(
    version: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> bytes:
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(storage, "read_bytes", fail)
    with pytest.raises(
        BadData, match=rf"^{images}/00\.jpg cannot be read \(.*\): run the same command again to continue"
    ):
        predict_files(str(version), "cpu", str(images), ["00.jpg"])
