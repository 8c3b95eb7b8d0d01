"""jobs.run.worker: what a worker imports before it can start."""

import subprocess
import sys


def test_workers_do_not_import_plotting_or_networks_that_they_may_not_need() -> None:
    """Every import delays the start of each worker, including one that replaces a lost worker."""
    code = (
        "import sys, jobs.run.worker; "
        "print([name for name in ('matplotlib', 'timm', 'torchvision', 'facenet_pytorch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
