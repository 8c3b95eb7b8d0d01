"""jobs.run.worker: what a worker imports before it can start."""

import subprocess
import sys

NEEDLESS = ("matplotlib", "albumentations", "timm", "torchvision", "facenet_pytorch")


def test_workers_do_not_import_what_they_may_not_need() -> None:
    """Every import delays the start of each worker, including one that replaces a lost worker."""
    code = f"import sys, jobs.run.worker; print([name for name in {NEEDLESS} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
