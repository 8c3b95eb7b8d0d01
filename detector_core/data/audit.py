"""What is wrong, or too easy, about a data set: counts, duplicates, and shortcuts that would be learnt, not faces.

A *shortcut* is a property of the file, not of the face, that separates the classes: if real images are larger
files, a network can score well without looking at one. Each property is judged alone, by the area under its ROC
curve; 0.5 says that it tells nothing.
"""

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector_core.data.duplicates import NEAR
from detector_core.data.index import Index
from detector_core.data.manifest import counts
from detector_core.labels import FAKE, LABELS, REAL, SPLITS

TABLE_I: Final = {split: dict.fromkeys(LABELS, n) for split, n in zip(SPLITS, (50_000, 10_000, 10_000), strict=True)}
"""Images per split and class in the paper. Source: Table I."""
LOUD: Final = 0.7
NUMBERS: Final = ("bytes", "width", "height", "brightness", "jpeg_quality", "metadata_bytes")
KINDS: Final = ("format", "jpeg_tables", "chroma")
_SHOWN: Final = 20
_LISTED: Final = 1000


def audit(index: Index, frame: pd.DataFrame, group_N: NDArray[np.int64]) -> dict[str, Any]:
    """Everything that is known about a data set beside its images, as plain values.

    Args:
        index: the source.
        frame: one row an image with ``path``, ``label``, ``split``, ``problem`` and the facts; images with a
            problem have no facts.
        group_N: group of near-duplicates of each row *without* a problem.

    Returns:
        The content of ``audit.json``; ``warnings`` holds a sentence for each thing that a reader must know.
    """
    bad, good = frame[frame["problem"].notna()], frame[frame["problem"].isna()]
    problems = [{"path": path, "reason": reason} for path, reason in zip(bad["path"], bad["problem"], strict=True)]
    result: dict[str, Any] = {
        "source": index.source,
        "images": len(good),
        "counts": counts(good),
        "table_1_of_the_paper": TABLE_I,
        "unreadable": {"count": len(bad), "files": problems[:_LISTED]},
        "ignored_files": index.ignored,
        "csv": index.csv,
        "duplicates": {
            "exact": duplicates(good, good["sha256"].factorize()[0]),
            "near": {"bits": NEAR, **duplicates(good, group_N)},
        },
        "shortcuts": shortcuts(good),
    }
    return {**result, "warnings": warnings(result)}


def duplicates(frame: pd.DataFrame, group_N: NDArray[np.int64]) -> dict[str, Any]:
    """Groups of two and more images: how many, how many reach across splits or labels, and examples.

    Groups across splits come first among the examples: they let a model be tested on what it has learnt.
    """
    rows = frame[["path", "label", "split"]].assign(group=group_N)
    rows = rows[rows["group"].duplicated(keep=False)]
    grouped = rows.groupby("group", sort=True)
    splits, labels = grouped["split"].nunique(), grouped["label"].nunique()
    shown = splits.sort_values(ascending=False, kind="stable").index[:_SHOWN]
    paths = grouped["path"].agg(list)
    return {
        "groups": len(splits),
        "images": len(rows),
        "across_splits": int((splits > 1).sum()),
        "across_labels": int((labels > 1).sum()),
        "examples": [paths[group][:_SHOWN] for group in shown],
    }


def shortcuts(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """How well each property of the files alone tells real from fake, the strongest first.

    Returns:
        ``property``, ``auc`` (the chance that a real image has the higher value than a fake one) and
        ``separation``, max(auc, 1 - auc). A property without an order is scored by the share of real images among
        those with the same value in the other half of the data, so that rare values cannot flatter it.
    """
    real_N = (frame["label"] == REAL).to_numpy()
    found = {name: auc(real_N, frame[name].astype("Float64").fillna(-1).to_numpy(dtype=np.float64)) for name in NUMBERS}
    found |= {name: _auc_of_kind(frame[name], real_N) for name in KINDS}
    rows = [{"property": name, "auc": area, "separation": max(area, 1 - area)} for name, area in found.items()]
    return sorted(rows, key=lambda row: (-row["separation"], row["property"]))


def auc(real_N: NDArray[np.bool_], score_N: NDArray[Any]) -> float:
    """The chance that a real image scores higher than a fake one, ties counting half; 0.5 without one of each."""
    rank_N = pd.Series(score_N).rank().to_numpy()
    reals, fakes = int(real_N.sum()), int((~real_N).sum())
    if not reals or not fakes:
        return 0.5
    return float((rank_N[real_N].sum() - reals * (reals + 1) / 2) / (reals * fakes))


def _auc_of_kind(values: pd.Series, real_N: NDArray[np.bool_]) -> float:
    """Each half of the images scored by the share of real ones that the other half has for the same value."""
    table = pd.DataFrame(
        {"value": values.to_numpy(), "real": real_N, "draw": np.random.default_rng(0).random(len(real_N))}
    )
    first_N = (table.groupby("real")["draw"].rank() % 2 == 0).to_numpy()
    areas = []
    for mine_N in (first_N, ~first_N):
        shares = table[~mine_N].groupby("value")["real"].mean()
        score_N = table.loc[mine_N, "value"].map(shares).fillna(real_N.mean())
        areas.append(auc(real_N[mine_N], score_N.to_numpy(dtype=np.float64)))
    return float(np.mean(areas))


def warnings(result: dict[str, Any]) -> list[str]:
    """One sentence for each thing in an audit that a reader must know, the most serious first."""
    near, exact, csv = result["duplicates"]["near"], result["duplicates"]["exact"], result["csv"] or {}
    found = [
        f"SHORTCUT: {row['property']} alone separates real from fake with AUC {row['separation']:.3f} (0.5 is chance): "
        f"a model can score well without looking at faces; give both classes the same export"
        for row in result["shortcuts"]
        if row["separation"] > LOUD
    ]
    empty = [split for split in SPLITS if not any(result["counts"][split].values())]
    countable = {
        "groups of identical files called both real and fake: {} (one label is wrong)": exact["across_labels"],
        "groups of near-identical images across splits: {} (test figures will flatter; audit.json names them)": near[
            "across_splits"
        ],
        "images left out because they cannot be used: {} (audit.json has the reasons)": result["unreadable"]["count"],
        "CSV rows without a file: {} (is the copy complete?)": _count(csv, "rows_without_file"),
        "files that no CSV lists: {}": _count(csv, "files_without_row"),
        "CSV rows that repeat a path: {}": csv.get("repeated_rows", 0),
    }
    found += [sentence.format(number) for sentence, number in countable.items() if number]
    return found + [f"there are no {split} images: a run that needs them will stop" for split in empty]


def _count(csv: dict[str, Any], name: str) -> int:
    return int(csv[name]["count"]) if csv else 0


def summary(result: dict[str, Any], title: str) -> str:
    """An audit for people: a few lines of text."""
    lines = [title, f"  {'':7}{'real':>8}{'fake':>8}   the paper's Table I"]
    for split in SPLITS:
        here, paper = result["counts"][split], TABLE_I[split]
        lines.append(f"  {split:7}{here[REAL]:>8,}{here[FAKE]:>8,}   {paper[REAL]:,} + {paper[FAKE]:,}")
    for name in ("exact", "near"):
        row = result["duplicates"][name]
        lines.append(
            f"  {name} duplicates: {row['groups']} groups of {row['images']} images, "
            f"{row['across_splits']} across splits, {row['across_labels']} across labels"
        )
    lines.append(f"  unreadable: {result['unreadable']['count']}")
    lines.append("  separation by one property of the files alone (AUC, 0.5 is none):")
    lines.append("    " + ", ".join(f"{row['property']} {row['separation']:.3f}" for row in result["shortcuts"]))
    lines += [f"  WARNING: {warning}" for warning in result["warnings"]]
    return "\n".join(lines)


def groups_across_splits(result: dict[str, Any]) -> int:
    """Groups of identical or near-identical images that reach across splits."""
    return int(result["duplicates"]["near"]["across_splits"])
