"""A tiny model folder, as training and evaluation leave it, for the tests of promotion and serving."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detector_core.config import RunSpec
from detector_core.evaluation import calibration, report
from detector_core.evaluation.calibration import Calibration
from detector_core.networks import artifacts
from detector_core.networks.artifacts import Artifact
from detector_core.networks.factory import build
from detector_core.networks.variants import spec_for

SIZE = 32


def tiny_spec() -> RunSpec:
    """A residual network of 0.4 M parameters at 32 px."""
    return spec_for("timm:test_resnet-cutout", {"model.init": "none", "preprocess.image_size": SIZE})


class Backbone(nn.Module):
    """What :class:`FrozenNetwork` needs of a backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 6, 3, stride=2))])


def save_model(
    folder: Path,
    *,
    seed: int = 0,
    run: str = "tiny",
    auc: float | None = 0.9,
    data: str = "d1",
    generated: bool = True,
    spec: RunSpec | None = None,
    thresholds: tuple[float, float] = (0.3, 0.7),
) -> Path:
    """Writes a model folder with random weights, a calibration and a report of the test split (if ``auc`` is given)."""
    spec = spec or tiny_spec()
    torch.manual_seed(seed)
    network = build(spec.model, pretrained=False)
    described = {"name": f"data {data}", "generated": generated, "fingerprint": data, "counts": {}}
    artifact = artifacts.save(
        folder, network.state_dict(), Artifact(run=run, spec=spec, data=described, training={"complete": True})
    )
    calibration.save(
        str(folder),
        Calibration(
            temperature=2.0,
            real_below=thresholds[0],
            fake_above=thresholds[1],
            max_fakes_passed=0.01,
            chosen_on={"fingerprint": data, "split": "valid", "weights_sha256": artifact.weights_sha256},
        ),
    )
    if auc is not None:
        add_report(folder, auc=auc, data=described)
    return folder


def add_report(folder: Path, *, auc: float | None, data: dict[str, Any], name: str = "test", sha256: str = "") -> None:
    """Writes the fields of a report of jobs.evaluate that promotion and serving read."""
    values = {
        "format": report.FORMAT,
        "model": {"weights_sha256": sha256 or artifacts.read(folder).weights_sha256},
        "data": data,
        "split": "test",
        "images": {"real": 50, "fake": 50},
        "ranking": {"auc": {"value": auc}},
        "confusion": {"reals_passed": 45, "fakes_passed": 5, "reals_flagged": 5, "fakes_caught": 45},
        "histogram": {"real": [45] + [0] * 38 + [5], "fake": [5] + [0] * 38 + [45]},
        "metrics": {name: {"value": 0.1} for name in ("accuracy", "fakes_passed_rate", "reals_flagged_rate")},
    }
    where = folder / artifacts.EVALUATION / name / report.REPORT
    where.parent.mkdir(parents=True)
    where.write_text(json.dumps(values))
