"""A set with planted faults, from its folders to a comparison: each fault is reported where it matters.

Planted are two generators, an easy one and a hard one, a person who is in two splits, and a test image that is also in
the training split.
"""

import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from detector_core import labels
from detector_core.data import manifest, seen
from detector_core.data.audit import audit
from detector_core.data.duplicates import connected_groups, near_duplicate_edges, row_blocks, unpack_hashes
from detector_core.data.index import scan
from detector_core.data.inspect import inspect_images
from detector_core.data.manifest import Manifest
from detector_core.data.sources import SourceRules
from detector_core.evaluation import report_html, report_text
from detector_core.evaluation.by_source import evaluate_sources
from detector_core.evaluation.calibration import UNCALIBRATED, choose
from detector_core.evaluation.model_comparison import ScoredRun, compare_models
from detector_core.evaluation.model_comparison_html import format_sets, render_page
from detector_core.evaluation.model_comparison_tables import comparison_files
from detector_core.evaluation.report import build_report

PER_CLASS = {"train": 8, "valid": 4, "test": 40}


def portrait(number: int) -> Image.Image:
    """A smooth random image; no two of them are near-duplicates."""
    small = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, dict[str, Any]]:
    """The data set and its audit."""
    root, rows, number = tmp_path_factory.mktemp("planted"), [], 0
    for split, count in PER_CLASS.items():
        for label in labels.LABELS:
            for index in range(count):
                path = root / split / label / f"{index:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                number += 1
                portrait(number).save(path)
                source = "camera" if label == "real" else ("easy", "hard")[index % 2]
                rows.append({"path": f"{split}/{label}/{path.name}", "source": source, "group": f"person {number}"})
    table = pd.DataFrame(rows).set_index("path")
    table.loc["valid/real/01.png", "group"] = table.loc["train/real/02.png", "group"]
    (root / "test/real/05.png").write_bytes((root / "train/real/03.png").read_bytes())
    table.reset_index().to_csv(root / "sources.csv", index=False)
    index = scan(str(root))
    origins = index.origins(SourceRules())
    frame = index.frame[["path", "label", "split"]].merge(inspect_images(str(root), list(index.frame["path"])))
    frame = frame.merge(origins.frame)
    hashes = unpack_hashes(frame["phash"].tolist())
    edges = [near_duplicate_edges(hashes, block) for block in row_blocks(len(hashes))]
    found = audit(index, frame, connected_groups(len(hashes), edges), origins)
    where = str(root / "dataset")
    manifest.save(where, frame, root=str(root), name="planted", generated=False, audit=found)
    return manifest.load(where), found


def scores(data: Manifest, *, hard: float, seed: int = 0) -> pd.DataFrame:
    """Scores of a model that catches the easy generator, and the hard one by ``hard`` standard deviations."""
    rows = data.split("test")
    distance = rows["source"].map({"camera": 0.0, "easy": 6.0, "hard": hard}).to_numpy()
    logit = np.random.default_rng(seed).normal(size=len(rows)) + distance - 3
    return rows[["path", "label", "source"]].assign(logit=logit)


def test_the_audit_names_the_torn_group_and_the_leak(prepared: tuple[Manifest, dict[str, Any]]) -> None:
    _, found = prepared
    assert found["groups"]["across_splits"] == 1
    assert found["groups"]["examples"] == [["train/real/02.png", "valid/real/01.png"]]
    assert found["duplicates"]["exact"]["across_splits"] == found["duplicates"]["near"]["across_splits"] == 1
    assert found["duplicates"]["exact"]["examples"] == [["test/real/05.png", "train/real/03.png"]]
    assert list(found["sources"]) == ["camera", "easy", "hard"]
    assert sum("across splits: 1" in warning for warning in found["warnings"]) == 2


def test_the_report_says_it_and_tells_the_generators_apart(prepared: tuple[Manifest, dict[str, Any]]) -> None:
    data, _ = prepared
    scored = scores(data, hard=1.0)
    chosen_on = {"fingerprint": data.fingerprint, "name": data.name, "split": "valid", "n": 8}
    chosen = choose(labels.is_fake(scored["label"]), scored["logit"].to_numpy(), chosen_on=chosen_on)
    model = {"run": "run", "variant": "v", "weights_sha256": "w" * 64, "data": data.describe(), "folder": "f"}
    found = seen.overlap(seen.of_images(data.frame), data.split("test"))
    report = build_report(
        scored, chosen, model=model, data=data.describe(), split="test", data_warnings=data.warnings, overlap=found
    )
    assert (report["overlap"]["exact"], report["overlap"]["near"]) == (1, 0)
    assert report["overlap"]["examples"] == [{"path": "test/real/05.png", "use": "train", "exact": True}]
    assert report["sources"]["worst"]["fakes_passed_rate"] == "hard"
    passed = {row["source"]: row["fakes_passed_rate"]["value"] for row in report["sources"]["rows"]}
    assert passed["easy"] < 0.1 < passed["hard"]
    for text in (report_text.format_report(report), report_html.render_page(report, {})):
        assert "it was trained or chosen on 1 of them (overlap in report.json" in text
        assert "groups (of a person, video or seed) across splits: 1" in text
        assert "fakes passed, worst source" in text
    json.dumps(report, allow_nan=False)


def test_a_comparison_says_it_tells_the_generators_apart_and_lets_no_leaky_model_win(
    prepared: tuple[Manifest, dict[str, Any]],
) -> None:
    data, _ = prepared
    overlap = seen.overlap(seen.of_images(data.frame), data.split("test"))
    runs = []
    for name, hard, of in (("leaky", 6.0, overlap), ("clean", 2.0, seen.Overlap(images=80, exact=0, near=0))):
        scored = scores(data, hard=hard, seed=1)
        scored = scored.assign(p_fake=UNCALIBRATED.p_fake(scored["logit"]))
        sources = evaluate_sources(scored, UNCALIBRATED)
        runs.append(ScoredRun(name=name, model=name, seed=0, scores=scored, threshold=0.5, overlap=of, sources=sources))
    compared = {"name": "planted", "reals_flagged": 0.05, "warnings": data.warnings, **compare_models(runs)}
    assert compared["winner"]["excluded"] == {"leaky": "was trained or chosen on 1 of these images"}
    assert compared["winner"]["model"] == "clean"
    passed = {
        (row["model"], source["source"]): source["fakes_passed_rate"]["value"]
        for row in compared["rows"]
        for source in row["sources"]["rows"]
    }
    assert passed["clean", "easy"] < 0.05 < 0.5 < passed["clean", "hard"]
    assert passed["leaky", "hard"] < 0.05
    page = render_page([compared], "a title", [])
    for text in (page, format_sets([compared])):
        assert "excluded: leaky was trained or chosen on 1 of these images" in text
        assert "groups (of a person, video or seed) across splits: 1" in text
        assert "mean over sources" in text
    assert "<td>hard</td><td>clean</td><td>0</td><td>20</td>" in page
    files = comparison_files([compared])
    table = pd.read_csv(io.BytesIO(files["sources.csv"])).set_index(["run", "source"])
    assert table.loc[("clean", "hard"), ["real", "fake", "fakes_passed_rate"]].tolist() == [
        *(0, 20, passed["clean", "hard"])
    ]
    assert b"hard & clean & 0 & 20 & " in files["comparison.tex"]
