"""jobs.run.worker: what a worker imports before it can start, and that it checks its GPU."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import ray.train
import ray.train.torch

from detector_core.errors import DetectorError, InsufficientResources
from detector_core.networks.variants import spec_for
from jobs.run import worker
from jobs.run.request import RunRequest

NEEDLESS = ("matplotlib", "albumentations", "timm", "torchvision", "facenet_pytorch")


def test_workers_do_not_import_what_they_may_not_need() -> None:
    """Every import delays the start of each worker, including one that replaces a lost worker."""
    code = f"import sys, jobs.run.worker; print([name for name in {NEEDLESS} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("gpu", "error"), [(True, "no GPU can be used"), (False, "past the check")])
def test_a_worker_whose_gpu_cannot_be_used_ends_before_it_trains(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, error: str
) -> None:
    def check() -> None:
        raise InsufficientResources("no GPU can be used on this machine")

    def get_device() -> None:
        raise DetectorError("past the check")

    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(worker.gpu, "check", check)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray.train.torch, "get_device", get_device)
    monkeypatch.setattr(RunRequest, "load_data", lambda _: SimpleNamespace(fingerprint=""))
    request = RunRequest(name="run", spec=spec_for("resnet68-cutout").to_dict(), data="", storage="", gpu=gpu)
    with pytest.raises(DetectorError, match=error):
        worker._train(request, board=None)
