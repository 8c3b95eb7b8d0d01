"""docs/extend.md: each of its diffs is short, applies to this tree, and does what the page says."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extend.md").read_text()
DIFFS = re.findall(r"^```diff\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
VARIANT, METRIC, CHANGE = 0, 1, 2
LIMIT_S = 300
METRIC_TESTS = "tests/core/evaluation/test_metrics.py"
CHANGE_TESTS = "tests/core/evaluation/test_robustness.py"


def changed(diff: str, folder: Path) -> Path:
    """A copy of the core and the tests that diffs change, with the diff applied; git sees no repository around it."""
    shutil.copytree(ROOT / "detector_core", folder / "detector_core", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (METRIC_TESTS, CHANGE_TESTS, "tests/support/scores.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    there = subprocess.run(
        ["git", "apply", "--reverse", "--check"], cwd=folder, input=diff, capture_output=True, text=True
    )
    for check in () if there.returncode == 0 else (["--check"], []):
        done = subprocess.run(["git", "apply", *check], cwd=folder, input=diff, capture_output=True, text=True)
        assert done.returncode == 0, f"docs/extend.md is out of date, correct its diff: {done.stderr}"
    return folder


def tried(code: str, folder: Path, *arguments: object) -> Any:
    """The JSON that a fresh Python prints, with the changed core."""
    command = [sys.executable, "-c", f"import torch; torch.set_num_threads(1)\n{code}", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_there_are_three_and_each_is_under_40_lines() -> None:
    assert [len(diff.splitlines()) < 40 for diff in DIFFS] == [True, True, True]


TRAIN = """
import json, sys
from detector_core.data import manifest
from detector_core.evaluation import explain, report, scoring
from detector_core.networks import artifacts
from detector_core.evaluation.calibration import UNCALIBRATED
from detector_core.data.loading import ImageDataset
from detector_core.images.preprocess import normalize
from detector_core.training.step import TrainState
from detector_core.training.loop import fit
from detector_core.networks.variants import spec_for
small = {"preprocess.image_size": 32, "optim.epochs": 1, "optim.batch_size": 12, "optim.micro_batch": 4}
spec, data = spec_for("plain5-cutout", small), manifest.load(sys.argv[1])
state = TrainState(spec, data.fingerprint)
epoch = list(fit(state, data))[-1]
artifacts.save(sys.argv[2], state.best_weights, artifacts.Artifact(
    run="seventh", spec=spec, data=data.describe(), training={"complete": True, "history": [epoch.to_dict()]}
))
network, artifact = artifacts.load(sys.argv[2])
rows = data.split("test")
scores = scoring.score(network, rows, data.root, spec.preprocess)
images = ImageDataset(rows, data.root, spec.preprocess)
x_BCHW = normalize(images.collate([images[0, 0]]).pixels_BSSC, spec.preprocess)
print(json.dumps({
    "steps": epoch.steps,
    "cutout": spec.augment.cutout,
    "variant": artifact.spec.variant,
    "evaluated": report.summarize(scores, UNCALIBRATED)["images"],
    "heat": explain.heat_maps(network, x_BCHW, ["fake"])[0].shape,
}))
"""


def test_the_seventh_variant_trains_is_evaluated_and_explained(tiny_dataset: Path, tmp_path: Path) -> None:
    found = tried(TRAIN, changed(DIFFS[VARIANT], tmp_path / "tree"), tiny_dataset, tmp_path / "model")
    assert found["heat"][0] == found["heat"][1]
    del found["heat"]
    assert found == {"steps": 4, "cutout": 0.5, "variant": "plain5-cutout", "evaluated": {"real": 8, "fake": 8}}


EVALUATE = """
import json, sys
import pandas as pd
import pytest
from detector_core.evaluation import comparison, comparison_html, report, report_html, report_text
from detector_core.evaluation.calibration import UNCALIBRATED
from detector_core.networks.variants import spec_for
data = {"name": "drawn", "generated": True, "fingerprint": "f", "counts": {"train": {"real": 3, "fake": 2}}}
model = {"run": "one", "variant": "resnet68", "weights_sha256": "w", "data": data}
scores = pd.DataFrame({"path": list("abcde"), "label": ["real"] * 3 + ["fake"] * 2, "logit": [-2.0, -1, 1, 2, -2]})
made = report.build_report(scores, UNCALIBRATED, model=model, data=data, split="test")
epoch = {"epoch": 1, "images_per_s": 1.0, "peak_memory_bytes": 1}
training = {"epochs": 1, "seconds": 1.0, "best": epoch}
rows = scores.assign(p_fake=UNCALIBRATED.p_fake(scores["logit"]))
run = comparison.EvaluatedRun(spec=spec_for("resnet68"), report=made, scores=rows, training=training, history=[epoch])
compared = comparison.compare([run])
tests = pytest.main(["--noconftest", "--hypothesis-seed=0", "-q", sys.argv[1]])
print(json.dumps({
    "tests": tests,
    "value": made["metrics"]["fake_precision"]["value"],
    "shown": ["precision of fakes" in text for text in (
        report_html.render_page(made, {}), report_text.format_report(made), comparison_html.format_comparison(compared)
    )],
    "paper": comparison.table_5(compared["means"]).set_index("source")["fake_precision"].to_dict(),
}))
"""


def test_the_new_metric_is_in_the_report_on_its_page_and_in_the_tables(tmp_path: Path) -> None:
    found = tried(EVALUATE, changed(DIFFS[METRIC], tmp_path), METRIC_TESTS)
    assert found["tests"] == 0
    assert found["value"] == pytest.approx(1 / 2)
    assert found["shown"] == [True, True, True]
    assert found["paper"]["ours"] == pytest.approx(100 * found["value"])
    assert 50 < found["paper"]["paper"] < 100


GRID = """
import json, sys
import pandas as pd
import pytest
from detector_core.evaluation import report, report_html, report_text
from detector_core.evaluation.calibration import UNCALIBRATED
from detector_core.evaluation.robustness import CHANGES, UNCHANGED, evaluate_grid
data = {"name": "drawn", "generated": True, "fingerprint": "f", "counts": {"train": {"real": 1, "fake": 1}}}
model = {"run": "one", "variant": "resnet68", "weights_sha256": "w", "data": data}
scores = pd.DataFrame({"path": ["a", "b"], "label": ["real", "fake"], "logit": [-2.0, 2.0]})
made = report.build_report(scores, UNCALIBRATED, model=model, data=data, split="test")
grid = scores.assign(**{name: scores["logit"] for name in (UNCHANGED, *CHANGES)})
made["robustness"] = evaluate_grid(grid, UNCALIBRATED)
tests = pytest.main(["--noconftest", "-q", "-k", "each_change or documented_effect", sys.argv[1]])
print(json.dumps({
    "tests": tests,
    "rows": [row["change"] for row in made["robustness"]].count("grayscale"),
    "shown": ["grayscale" in text for text in (report_html.render_page(made, {}), report_text.format_report(made))],
}))
"""


def test_the_new_change_is_a_row_of_the_report_and_of_its_page(tmp_path: Path) -> None:
    found = tried(GRID, changed(DIFFS[CHANGE], tmp_path), CHANGE_TESTS)
    assert found == {"tests": 0, "rows": 1, "shown": [True, True]}
