"""The engines by themselves: what an exported graph holds, how batches are filled up, what a network compiles."""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detector_core.config import PreprocessSpec
from detector_core.data import manifest
from detector_core.errors import BadData
from detector_core.registry import openvino_export
from detector_core.registry.engines import OpenVinoEngine, TorchEngine, pad_batch, sizes
from detector_core.registry.predictor import Predictor
from tests.support.models import SIZE, save_model


def squares(count: int, size: int = SIZE) -> np.ndarray:
    """Noise."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_the_preprocessing_record_is_in_the_graph(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 1)
    ).eval()
    preprocess = PreprocessSpec(image_size=20, mean=(0.1, 0.5, 0.9), std=(0.2, 0.4, 0.8), channels="BGR")
    engine = OpenVinoEngine(openvino_export.export(network, preprocess, tmp_path), "fp32", threads=1)
    for count in (1, 3, 2):
        assert engine(squares(count, 20)) == pytest.approx(
            TorchEngine(network, preprocess)(squares(count, 20)), abs=1e-5
        )


def test_a_compiled_network_compiles_nothing_after_its_warm_up_and_computes_in_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, with a backend that compiles nothing but counts."""
    compiled: list[int] = []
    threads: set[str] = set()

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        compiled.append(max(one.shape[0] for one in inputs if one.dim() == 4 and one.shape[-1] == SIZE))

        def run(*values: torch.Tensor) -> Any:
            threads.add(threading.current_thread().name)
            return graph.forward(*values)

        return run

    model = save_model(tmp_path / "model")
    expected = [one.logit for one in Predictor(model).predict(list(squares(9)))]
    monkeypatch.setattr("detector_core.registry.predictor.TorchEngine", partial(TorchEngine, backend=backend))
    predictor = Predictor(model, batch_size=6)
    assert compiled == [1, 4, 6]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda count: predictor.predict(list(squares(9))[:count]), range(1, 10)))
    assert compiled == [1, 4, 6]
    assert len(threads) == 1
    for several in found:
        assert [one.logit for one in several] == pytest.approx(expected[: len(several)], abs=1e-4)


def test_batches_are_filled_up_to_a_few_sizes() -> None:
    assert (sizes(1), sizes(16), sizes(32)) == ((1,), (1, 4, 16), (1, 4, 16, 32))
    full = pad_batch(squares(3), sizes(16))
    assert full.shape[0] == 4
    assert (full[:3] == squares(3)).all()
    assert pad_batch(squares(5), (4,)).shape[0] == 5
    assert pad_batch(squares(5), ()).shape[0] == 5


def test_int8_is_calibrated_on_whole_images_of_both_classes(writable_dataset: Path) -> None:
    data = manifest.load(str(writable_dataset))
    rows, preprocess = data.split("train"), PreprocessSpec(image_size=24)
    assert openvino_export.calibration_images(rows, data.root, preprocess).shape == (16, 24, 24, 3)
    with pytest.raises(BadData, match="the training split has no fake image"):
        openvino_export.calibration_images(rows.query("label == 'real'"), data.root, preprocess)
    torn = Path(data.root) / rows["path"][3]
    torn.write_bytes(torn.read_bytes()[:300])
    with pytest.raises(BadData, match=f"{torn}: .*damaged"):
        openvino_export.calibration_images(rows, data.root, preprocess)


SIGNALS = """
import signal, sys, threading
from pathlib import Path
import numpy as np
from detector_core.registry.engines import OpenVinoEngine
from detector_core.registry.openvino_export import quantize

signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
file = Path(sys.argv[1])
one, two = OpenVinoEngine(file, "fp32", threads=1), OpenVinoEngine(file, "fp32", threads=1)
del one
del two
signal.raise_signal(signal.SIGUSR1)
engines = [OpenVinoEngine(file, "fp32", threads=1)]
other = threading.Thread(target=engines.clear)
other.start()
other.join()
signal.raise_signal(signal.SIGUSR1)
quantize(file, np.random.default_rng(0).integers(0, 256, (4, int(sys.argv[2]), int(sys.argv[2]), 3), dtype=np.uint8))
signal.raise_signal(signal.SIGUSR1)
"""


def test_a_signal_after_engines_are_gone_is_handled(tmp_path: Path) -> None:
    """In whatever order, and whichever thread, they were dropped; and after NNCF has made its own."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 1)
    ).eval()
    file = openvino_export.export(network, PreprocessSpec(image_size=20), tmp_path)
    command = [sys.executable, "-c", SIGNALS, str(file), "20"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stdout.split()) == (0, ["handled"] * 3), found.stderr[-2000:]
