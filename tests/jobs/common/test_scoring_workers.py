"""jobs.common.scoring_workers: the GPU of a worker. Starts no Ray; tests/jobs/test_evaluate.py scores for real."""

import pandas as pd
import pytest

from detector_core.errors import DetectorError, InsufficientResources
from detector_core.evaluation import scoring
from jobs.common import scoring_workers


@pytest.mark.parametrize(("device", "error"), [("cuda", "no GPU can be used"), ("cpu", "nowhere")])
def test_a_worker_whose_gpu_cannot_be_used_scores_nothing(
    monkeypatch: pytest.MonkeyPatch, device: str, error: str
) -> None:
    def check() -> None:
        raise InsufficientResources("no GPU can be used on this machine")

    monkeypatch.setattr(scoring_workers.gpu_check, "check", check)
    worker = scoring_workers._ScoringWorker(device, threads=1)
    with pytest.raises(DetectorError, match=error):
        worker.score(0, pd.DataFrame(), "nowhere", "", scoring.score)
