"""What each worker of a run imports before it can start."""

import subprocess
import sys


def test_workers_do_not_import_plotting_or_networks_that_they_may_not_need() -> None:
    """Every import delays the start of every worker, also of one that replaces a lost one."""
    code = (
        "import sys, jobs.run.worker; "
        "print([name for name in ('matplotlib', 'timm', 'torchvision', 'facenet_pytorch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
