"""Export, parity gate and predictor together, with a tiny network and without Ray."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from detector_core.data import manifest
from detector_core.data.manifest import Manifest
from detector_core.errors import BadConfig, BrokenArtifact, OperationRefused
from detector_core.evaluation import scoring
from detector_core.networks import artifacts
from detector_core.registry import promotion, runtime_files, versions
from detector_core.registry.engines import OpenVinoEngine, cpu_has_bf16
from detector_core.registry.predictor import Predictor, describe
from tests.support.models import SIZE, save_model


@pytest.fixture(scope="module")
def data(tiny_dataset: Path) -> Manifest:
    return manifest.load(str(tiny_dataset))


@pytest.fixture(scope="module")
def messages() -> list[str]:
    return []


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory, data: Manifest, messages: list[str]) -> Path:
    """A version with every precision, read only. The limits are lifted, because the weights are random."""
    folder = tmp_path_factory.mktemp("promotion")
    add_runtime = partial(promotion.add_runtime, requested_precision="auto", data=data, say=messages.append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detector_core.registry.parity_gate.MAX_AUC_DROP", 1.0)
        patch.setattr("detector_core.registry.parity_gate.MAX_FLIP_RATE", 1.0)
        versions.promote(save_model(folder / "model"), folder / "models", add_files=add_runtime, key="auto")
    return versions.live(folder / "models")


def squares(count: int, size: int = SIZE) -> np.ndarray:
    """Images of noise."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_fp32_scores_match_the_evaluation(version: Path, data: Manifest) -> None:
    network, artifact = artifacts.load(version)
    expected = scoring.score(network, data.split("valid"), data.root, artifact.spec.preprocess)
    predictor = Predictor(version, precision="fp32", threads=1, batch_size=5)
    from detector_core.images.preprocess import decode

    predictions = predictor.predict([decode((Path(data.root) / path).read_bytes()) for path in expected["path"]])
    assert [prediction.logit for prediction in predictions] == pytest.approx(expected["logit"].tolist(), abs=1e-3)
    assert predictor.info.precision == "fp32"


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_int8_and_bf16_scores_are_close_to_fp32(version: Path, precision: str) -> None:
    images = list(squares(24))
    exact = Predictor(version, precision="fp32", threads=1).predict(images)
    fast = Predictor(version, precision=precision, threads=1)
    assert fast.info.precision == precision
    distance = np.abs([a.logit - b.logit for a, b in zip(exact, fast.predict(images), strict=True)])
    assert 0 <= distance.max() < 0.1
    assert Predictor(version).info == describe(version)


def test_without_data_the_record_in_the_model_folder_decides_about_bf16(
    version: Path, data: Manifest, tmp_path: Path
) -> None:
    model = save_model(tmp_path / "model")
    sha256 = artifacts.read(model).weights_sha256
    record = runtime_files.read(version, sha256)
    assert record
    assert promotion.add_runtime(shutil.copytree(model, tmp_path / "alone")).precision == "fp32"
    runtime_files.write(model, record, runtime_files.CARRIED_FILE)
    result = promotion.add_runtime(shutil.copytree(model, tmp_path / "carrying"))
    assert result.precision == ("bf16" if cpu_has_bf16() else "fp32")
    assert result.compared_on["name"] == data.name
    assert "int8" not in {row["precision"] for row in result.results}, "int8 was not exported"
    failed = [row | {"passed": False} if row["precision"] == "bf16" else row for row in record.results]
    runtime_files.write(model, dataclasses.replace(record, results=failed), runtime_files.CARRIED_FILE)
    assert promotion.add_runtime(shutil.copytree(model, tmp_path / "failed")).precision == "fp32"
    runtime_files.write(model, dataclasses.replace(record, weights_sha256="0" * 64), runtime_files.CARRIED_FILE)
    with pytest.raises(BrokenArtifact, match=r"parity_gate\.json belongs to other weights"):
        promotion.add_runtime(shutil.copytree(model, tmp_path / "others"))


def test_the_record_holds_the_results_of_the_gate(version: Path, messages: list[str]) -> None:
    record = runtime_files.read(version, artifacts.read(version).weights_sha256)
    assert record
    assert record.precision == "int8"
    assert [result["precision"] for result in record.results] == ["int8", "bf16", "fp32", "torch fp32"]
    assert record.compared_on["images"] == {"real": 8, "fake": 8}
    assert set(record.files) == {f"openvino/{name}.{end}" for name in ("fp32", "int8") for end in ("xml", "bin")}
    assert any("precisions are compared on it anyway" in line for line in messages)
    assert "-> int8" in messages[-1]
    assert "int8 |" in (version / "MODEL_CARD.md").read_text()


def test_serving_imports_neither_torch_nor_nncf_and_writes_nothing(version: Path, tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from detector_core.registry.predictor import Predictor\n"
        f"Predictor({str(version)!r}, threads=1).predict([np.zeros((9, 9, 3), np.uint8)])\n"
        "print([name for name in ('torch', 'nncf', 'sklearn', 'matplotlib', 'pandas') if name in sys.modules],"
        " sys.modules['openvino_telemetry'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert done.stdout == "[] None\n", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_explain_loads_the_network_and_returns_a_heat_map(version: Path) -> None:
    predictor = Predictor(version, threads=1)
    maps = [predictor.explain(squares(1)[0], toward) for toward in ("fake", "real", "fake")]
    assert maps[0].shape == (SIZE, SIZE)
    assert maps[0].dtype == np.float32
    assert 0 <= maps[0].min() <= maps[0].max() <= 1
    assert (maps[0] == maps[2]).all()


@pytest.mark.parametrize("name", ["int8.bin", "int8.xml", "fp32.bin"])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"changed"), Path.unlink])
def test_a_damaged_export_is_refused(version: Path, tmp_path: Path, name: str, damage: Callable[[Path], Any]) -> None:
    models = tmp_path / "models"
    shutil.copytree(version.parent, models)
    damage(models / version.name / "openvino" / name)
    with pytest.raises(BrokenArtifact, match=f"{name} (was changed|is missing)"):
        Predictor(models / version.name, precision="auto" if name.startswith("int8") else "bf16")
    versions.promote(save_model(tmp_path / "next", seed=1), models)
    with pytest.raises(BrokenArtifact, match=name):
        versions.rollback(models)


def test_a_record_of_other_weights_or_another_format_is_refused(version: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(version, tmp_path / "copy")
    values = json.loads((folder / "runtime.json").read_text())
    for change in ({"weights_sha256": "0"}, {"format": 9}, {"precision": "int4"}, {"more": 1}):
        (folder / "runtime.json").write_text(json.dumps({**values, **change}))
        with pytest.raises(BrokenArtifact, match="promote the model again"):
            describe(folder)


def test_a_model_without_a_record_is_served_by_torch_in_fp32(tmp_path: Path) -> None:
    model = save_model(tmp_path / "plain")
    assert Predictor(model).info.precision == "fp32"
    with pytest.raises(BadConfig, match="this model has fp32"):
        Predictor(model, precision="int8")


class WrongInt8(OpenVinoEngine):
    """An engine whose int8 scores are wrong."""

    def __init__(self, file: Path, precision: str, threads: int = 0) -> None:
        super().__init__(file, precision, threads)
        self.precision = precision

    def __call__(self, pixels_BSSC: np.ndarray) -> np.ndarray:
        return super().__call__(pixels_BSSC) + (
            99 * (-1) ** np.arange(len(pixels_BSSC)) if self.precision == "int8" else 0
        )


def test_if_a_precision_fails_the_next_one_is_served(
    tmp_path: Path, data: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector_core.registry.promotion.OpenVinoEngine", WrongInt8)
    monkeypatch.setattr("detector_core.registry.promotion.openvino_export.quantize", lambda fp32, _: fp32)
    model = save_model(tmp_path / "model")
    monkeypatch.setitem(promotion.FILE_NAMES, "int8", "fp32.xml")
    messages: list[str] = []
    record = promotion.add_runtime(model, data=data, say=messages.append)
    assert record.precision == ("bf16" if cpu_has_bf16() else "fp32")
    assert record.results[0]["passed"] is False
    assert "verdicts flip" in record.results[0]["reason"]
    assert "no verdict may flip" in "".join(messages)

    models = tmp_path / "models"
    explicit = partial(promotion.add_runtime, requested_precision="int8", data=data, say=messages.append)
    clean = save_model(tmp_path / "clean")
    with pytest.raises(OperationRefused, match=r"int8 does not pass the parity gate: .* of 16 verdicts flip.*--force"):
        versions.promote(clean, models, add_files=explicit, key="int8")
    assert versions.list_versions(models) == []
    assert [path.name for path in models.iterdir()] == []
    versions.promote(clean, models, add_files=partial(explicit, force=True), key="int8")
    assert describe(versions.live(models)).precision == "int8"


def test_a_cpu_without_bf16_does_not_serve_bf16(
    tmp_path: Path, data: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector_core.registry.promotion.cpu_has_bf16", lambda: False)
    with pytest.raises(OperationRefused, match=r"this CPU has no bf16 instructions; --precision auto"):
        promotion.add_runtime(
            save_model(tmp_path / "model"), requested_precision="bf16", data=data, force=True, say=lambda _: None
        )


def test_without_data_fp32_is_served_with_a_message(tmp_path: Path) -> None:
    messages: list[str] = []
    record = promotion.add_runtime(save_model(tmp_path / "model"), say=messages.append)
    assert (record.precision, record.compared_on) == ("fp32", {})
    assert record.results == [
        {**record.results[0], "precision": "fp32", "passed": None, "reason": "not compared: no data set was named"}
    ]
    assert "--data" in messages[0]
    with pytest.raises(BadConfig, match="--data DATASET"):
        promotion.add_runtime(tmp_path / "model", requested_precision="bf16", say=messages.append)


def test_an_export_with_other_scores_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(OpenVinoEngine):
        def __call__(self, pixels_BSSC: np.ndarray) -> np.ndarray:
            return super().__call__(pixels_BSSC) + 0.1

    monkeypatch.setattr("detector_core.registry.promotion.OpenVinoEngine", Wrong)
    with pytest.raises(BrokenArtifact, match=r"differs by 0\.1"):
        promotion.add_runtime(save_model(tmp_path / "model"), say=lambda _: None)


@pytest.mark.parametrize(
    ("has_bf16", "precision", "compared_in", "served_in"),
    [
        (True, "int8", "bf16", "bf16"),
        (True, "int8", "f32", "f32"),
        (True, "int8", None, "f32"),
        (True, "bf16", "bf16", "bf16"),
        (True, "fp32", "f32", "f32"),
        (False, "int8", "bf16", "f32"),
        (False, "int8", "f32", "f32"),
    ],
)
def test_another_machine_uses_the_compute_dtype_of_the_gate_or_f32(
    version: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_bf16: bool,
    precision: str,
    compared_in: str | None,
    served_in: str,
) -> None:
    folder = shutil.copytree(version, tmp_path / "copy")
    record = json.loads((folder / "runtime.json").read_text())
    record["compute_dtypes"] = {precision: compared_in} if compared_in else {}
    (folder / "runtime.json").write_text(json.dumps(record))
    hints: list[str] = []

    def compile_model(file: str, device: str, settings: dict[str, Any]) -> Any:  # noqa: ARG001 -- of OpenVINO
        hints.append(settings["INFERENCE_PRECISION_HINT"])
        raise RuntimeError("not today")

    core = SimpleNamespace(compile_model=compile_model)
    monkeypatch.setattr("detector_core.registry.engines.cpu_has_bf16", lambda: has_bf16)
    monkeypatch.setattr("detector_core.registry.engines.import_openvino", lambda: SimpleNamespace(Core=lambda: core))
    with pytest.raises(BrokenArtifact, match="not today"):
        Predictor(folder, precision=precision)
    assert hints == [served_in]


@pytest.mark.parametrize(
    ("requested", "passed", "served"),
    [("auto", True, "bf16"), ("int8", True, "bf16"), ("int8", False, "fp32"), ("fp32", True, "fp32")],
)
def test_torch_serves_bf16_instead_of_int8_if_it_passed_the_gate(
    version: Path, tmp_path: Path, requested: str, passed: bool, served: str
) -> None:
    folder = shutil.copytree(version, tmp_path / "copy")
    record = json.loads((folder / "runtime.json").read_text())
    record["results"] = [{**row, "passed": passed or row["precision"] != "bf16"} for row in record["results"]]
    (folder / "runtime.json").write_text(json.dumps(record))
    predictor = Predictor(
        folder, precision=requested, device="cpu:0"
    )  # a CPU for torch that is not the device of OpenVINO
    assert predictor.info.precision == served
    exact = Predictor(folder, precision="fp32", threads=1).predict(list(squares(4)))
    logits = np.array([prediction.logit for prediction in predictor.predict(list(squares(4)))])
    distance = np.abs(logits - [prediction.logit for prediction in exact]).max()
    assert distance < 0.1
    assert bool(distance > 1e-4) is (served == "bf16")


def test_the_record_holds_the_compute_dtypes_of_the_gate(version: Path) -> None:
    record = runtime_files.read(version, artifacts.read(version).weights_sha256)
    assert record
    fast = "bf16" if cpu_has_bf16() else "f32"
    assert record.compute_dtypes == {"int8": fast, "bf16": fast, "fp32": "f32"}
    assert record.measured_on["bf16"] is cpu_has_bf16()
