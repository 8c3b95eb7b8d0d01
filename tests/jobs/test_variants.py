"""Every variant of Table II through the training job on two workers; test_reproduce.py has them on one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from detector_core import artifacts
from detector_core.variants import VARIANTS, spec_for
from jobs.train import main

SIZE = 80  # the smallest that all six accept, rounded up


def test_all_six_leave_a_model_that_loads(
    small_dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ["--image-size", str(SIZE), "--epochs", "1", "--batch-size", "4", "--micro-batch", "2", "--init", "none"]
    command = ["all", "--data", str(small_dataset), "--storage", str(tmp_path), "--name", "six", *flags]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--workers", "2", "--cpus", "1"])
    out, err = capfd.readouterr()
    assert ended.value.code == 0, err
    results: list[dict[str, Any]] = json.loads(out.splitlines()[-1])["runs"]
    assert [result["variant"] for result in results] == list(VARIANTS)
    for result in results:
        network, artifact = artifacts.load(result["run"])
        assert artifact.spec.augment.cutout == spec_for(result["variant"]).augment.cutout
        with torch.inference_mode():
            assert network(torch.zeros(1, 3, SIZE, SIZE)).shape == (1, 1)
