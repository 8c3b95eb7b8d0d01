"""The engines on their own: the preprocessing in an exported graph, padded batches, compiled networks."""

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
from detector_core.registry import openvino_export
from detector_core.registry.engines import OpenVinoEngine, TorchEngine, compiled_batch_sizes, pad_batch
from detector_core.registry.predictor import Predictor
from tests.support.models import SIZE, save_model


def squares(count: int, size: int = SIZE) -> np.ndarray:
    """Images of noise."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_a_compiled_network_compiles_only_during_warm_up_and_computes_in_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, with a backend that only counts."""
    compiled: list[int] = []
    threads: set[str] = set()

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        compiled.append(max(tensor.shape[0] for tensor in inputs if tensor.dim() == 4 and tensor.shape[-1] == SIZE))

        def run(*values: torch.Tensor) -> Any:
            threads.add(threading.current_thread().name)
            return graph.forward(*values)

        return run

    model = save_model(tmp_path / "model")
    expected = [prediction.logit for prediction in Predictor(model).predict(list(squares(9)))]
    monkeypatch.setattr("detector_core.registry.predictor.TorchEngine", partial(TorchEngine, backend=backend))
    predictor = Predictor(model, batch_size=6)
    assert compiled == [1, 4, 6]
    with ThreadPoolExecutor(3) as pool:
        batches = list(pool.map(lambda count: predictor.predict(list(squares(9))[:count]), range(1, 10)))
    assert compiled == [1, 4, 6]
    assert len(threads) == 1
    for predictions in batches:
        logits = [prediction.logit for prediction in predictions]
        assert logits == pytest.approx(expected[: len(predictions)], abs=1e-4)


def test_batches_are_padded_to_a_few_sizes() -> None:
    assert (compiled_batch_sizes(1), compiled_batch_sizes(16), compiled_batch_sizes(32)) == (
        (1,),
        (1, 4, 16),
        (1, 4, 16, 32),
    )
    padded = pad_batch(squares(3), compiled_batch_sizes(16))
    assert padded.shape[0] == 4
    assert (padded[:3] == squares(3)).all()
    assert pad_batch(squares(5), (4,)).shape[0] == 5
    assert pad_batch(squares(5), ()).shape[0] == 5


def test_passes_that_overlap_have_the_scores_of_a_single_one(tmp_path: Path) -> None:
    """A single image takes the model that is compiled for all threads, several the streams."""
    network, spec = (
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIZE * SIZE, 1)),
        PreprocessSpec(image_size=SIZE),
    )
    file = openvino_export.export(network, spec, tmp_path)
    one, two = OpenVinoEngine(file, "fp32", threads=2), OpenVinoEngine(file, "fp32", threads=2, passes=2)
    assert (one.passes, two.passes, OpenVinoEngine(file, "fp32", threads=2, passes=9).passes) == (1, 2, 2)
    expected = one(squares(9))
    assert two(squares(9)[:1]) == pytest.approx(expected[:1], abs=1e-5)
    with ThreadPoolExecutor(4) as pool:
        for count, logits in zip(
            range(1, 10), pool.map(lambda count: two(squares(9)[:count]), range(1, 10)), strict=True
        ):
            assert logits == pytest.approx(expected[:count], abs=1e-5)


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


def test_signals_are_handled_after_engines_are_deleted(tmp_path: Path) -> None:
    """In any order and from any thread, and also after NNCF has created its own."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 1)
    ).eval()
    file = openvino_export.export(network, PreprocessSpec(image_size=20), tmp_path)
    command = [sys.executable, "-c", SIGNALS, str(file), "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split()) == (0, ["handled"] * 3), done.stderr[-2000:]
