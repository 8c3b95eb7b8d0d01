"""Finds what is wrong with a data set, or too easy about it: duplicates, unreadable files and shortcuts.

A *shortcut* is a property of the files, not of the faces, that separates the classes: if real images are larger files,
a network can score well without looking at a face. Each property is tested alone, by its ROC AUC; 0.5 means that it
carries no information about the label.
"""

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detector_core.data.duplicates import MAX_DISTANCE
from detector_core.data.index import Index
from detector_core.data.manifest import counts
from detector_core.data.sources import GROUP, Origins, counts_by_source, describe_sources
from detector_core.labels import FAKE, LABELS, REAL, SPLITS

TABLE_I: Final = {split: dict.fromkeys(LABELS, n) for split, n in zip(SPLITS, (50_000, 10_000, 10_000), strict=True)}
"""Images per split and class in the paper. Source: Table I."""
SHORTCUT_AUC: Final = 0.7
"""A property whose separation is above this gets a warning."""
NUMERIC_PROPERTIES: Final = ("bytes", "width", "height", "brightness", "jpeg_quality", "metadata_bytes")
CATEGORICAL_PROPERTIES: Final = ("format", "jpeg_tables", "chroma")
_MAX_EXAMPLES: Final = 20
_MAX_LISTED: Final = 1000


def audit(
    index: Index,
    frame: pd.DataFrame,
    group_N: NDArray[np.int64],
    origins: Origins,
    excluded: pd.Series | None = None,
) -> dict[str, Any]:
    """Audits a data set.

    Args:
        index: the source of the images.
        frame: one row per image with ``path``, ``label``, ``split``, ``source``, ``group``, ``problem`` and the columns
            of :data:`detector_core.data.inspect.PROPERTIES`, which are empty where ``problem`` is not.
        group_N: the near-duplicate group of each row *without* a problem, shape (N,).
        origins: where sources and groups were found.
        excluded: by path, why images that are not in ``frame`` were excluded.

    Returns:
        The content of ``audit.json``. Its ``warnings`` are one sentence each, the most serious first.
    """
    bad, good = frame[frame["problem"].notna()], frame[frame["problem"].isna()]
    result: dict[str, Any] = {
        "source": index.source,
        "images": len(good),
        "counts": counts(good),
        "table_1_of_the_paper": TABLE_I,
        "unreadable": _listed(bad["path"], bad["problem"]),
        "left_out": _listed(index.left_out["path"], index.left_out["reason"]),
        "excluded": _listed(*([excluded.index.to_series(), excluded] if excluded is not None else [_NONE, _NONE])),
        "csv": index.csv,
        "duplicates": {
            "exact": duplicates(good, good["sha256"].factorize()[0]),
            "near": {"bits": MAX_DISTANCE, **duplicates(good, group_N)},
        },
        "sources": counts_by_source(good),
        "groups": named_groups(good),
        "origins": {"csvs": origins.csvs, "rows_without_file": _examples(origins.unknown_paths)},
        "shortcuts": shortcuts(good),
    }
    return {**result, "warnings": warnings(result)}


_NONE: Final = pd.Series([], dtype="str")


def _listed(paths: pd.Series, reasons: pd.Series) -> dict[str, Any]:
    """Files and why they are not in the data set: their number, that of each kind of reason, and the first of them."""
    kinds = reasons.astype("str").str.split(":").str[0].value_counts().sort_index()
    files = [{"path": path, "reason": reason} for path, reason in zip(paths, reasons, strict=True)]
    return {"count": len(files), "reasons": kinds.to_dict(), "files": files[:_MAX_LISTED]}


def duplicates(frame: pd.DataFrame, group_N: NDArray[np.int64]) -> dict[str, Any]:
    """Summarizes the groups of two or more images.

    Args:
        frame: one row per image with ``path``, ``label`` and ``split``.
        group_N: the group of each row, shape (N,).

    Returns:
        The number of ``groups``, the ``images`` in them, how many groups span several splits (``across_splits``) or
        both labels (``across_labels``), and ``examples``. Groups that span splits come first among the examples,
        because they leak training images into the test split.
    """
    rows = frame[["path", "label", "split"]].assign(group=group_N)
    rows = rows[rows["group"].duplicated(keep=False)]
    grouped = rows.groupby("group", sort=True)
    splits, labels = grouped["split"].nunique(), grouped["label"].nunique()
    example_groups = splits.sort_values(ascending=False, kind="stable").index[:_MAX_EXAMPLES]
    paths = grouped["path"].agg(list)
    return {
        "groups": len(splits),
        "images": len(rows),
        "across_splits": int((splits > 1).sum()),
        "across_labels": int((labels > 1).sum()),
        "examples": [paths[group][:_MAX_EXAMPLES] for group in example_groups],
    }


def named_groups(frame: pd.DataFrame) -> dict[str, Any]:
    """Like :func:`duplicates`, of the groups that the data set names; and ``images_without`` a group."""
    named = frame[frame[GROUP].notna()]
    return {
        "named": int(named[GROUP].nunique()),
        "images_without": len(frame) - len(named),
        **duplicates(named, named[GROUP].factorize()[0].astype(np.int64)),
    }


def _examples(paths: list[str]) -> dict[str, Any]:
    return {"count": len(paths), "examples": paths[:_MAX_EXAMPLES]}


def shortcuts(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Measures how well each property of the files alone separates real from fake.

    A categorical property is scored by the proportion of real images among those with the same value in the other half
    of the data, so that values that occur only once cannot inflate the result.

    Returns:
        One row per property, the strongest first: ``property``, ``auc`` (ROC AUC with real as the positive class) and
        ``separation``, max(auc, 1 - auc). Nothing if there is one class only.
    """
    if frame["label"].nunique() < len(LABELS):
        return []
    real_N = (frame["label"] == REAL).to_numpy()
    aucs = {
        name: _roc_auc(real_N, frame[name].astype("Float64").fillna(-1).to_numpy(dtype=np.float64))
        for name in NUMERIC_PROPERTIES
    }
    aucs |= {name: _categorical_roc_auc(real_N, frame[name]) for name in CATEGORICAL_PROPERTIES}
    rows = [{"property": name, "auc": auc, "separation": max(auc, 1 - auc)} for name, auc in aucs.items()]
    return sorted(rows, key=lambda row: (-row["separation"], row["property"]))


def _roc_auc(real_N: NDArray[np.bool_], score_N: NDArray[Any]) -> float:
    """ROC AUC with real as the positive class; 0.5 if one of the classes is missing."""
    from sklearn.metrics import roc_auc_score  # takes a second to import

    return 0.5 if real_N.all() or not real_N.any() else float(roc_auc_score(real_N, score_N))


def _categorical_roc_auc(real_N: NDArray[np.bool_], values: pd.Series) -> float:
    """ROC AUC of the proportion of real images per value, two-fold: each half is scored by the other half."""
    table = pd.DataFrame(
        {"value": values.to_numpy(), "real": real_N, "draw": np.random.default_rng(0).random(len(real_N))}
    )
    first_half_N = (table.groupby("real")["draw"].rank() % 2 == 0).to_numpy()
    aucs = []
    for half_N in (first_half_N, ~first_half_N):
        proportions = table[~half_N].groupby("value")["real"].mean()
        score_N = table.loc[half_N, "value"].map(proportions).fillna(real_N.mean())
        aucs.append(_roc_auc(real_N[half_N], score_N.to_numpy(dtype=np.float64)))
    return float(np.mean(aucs))


def warnings(result: dict[str, Any]) -> list[str]:
    """Lists what a reader of an audit must know, one sentence each, the most serious first."""
    near, exact, csv = result["duplicates"]["near"], result["duplicates"]["exact"], result["csv"] or {}
    sentences = [
        f"SHORTCUT: {row['property']} alone separates real from fake with ROC AUC {row['separation']:.3f} (0.5 is "
        f"chance): a model can score well without looking at faces; export both classes in the same way"
        for row in result["shortcuts"]
        if row["separation"] > SHORTCUT_AUC
    ]
    missing = [label for label in LABELS if not any(result["counts"][split][label] for split in SPLITS)]
    empty = [split for split in SPLITS if not any(result["counts"][split].values())]
    numbers = {
        "groups of identical files labeled both real and fake: {} (one of the labels is wrong)": exact["across_labels"],
        "groups of near-identical images across splits: {} (test metrics will be too optimistic; audit.json lists "
        "examples)": near["across_splits"],
        "groups (of a person, video or seed) across splits: {} (test metrics will be too optimistic; audit.json lists "
        "examples)": result["groups"]["across_splits"],
        "images without a group, while others have one: {} (each is treated as a group of its own)": result["groups"][
            "images_without"
        ]
        if result["groups"]["named"]
        else 0,
        "rows of sources or groups without a file: {} (audit.json lists examples)": result["origins"][
            "rows_without_file"
        ]["count"],
        "files left out because they cannot be used: {} (audit.json gives the reasons)": result["unreadable"]["count"],
        "CSV rows without a file: {} (is the copy complete?)": _count(csv, "rows_without_file"),
        "files that no CSV lists: {}": _count(csv, "files_without_row"),
        "CSV rows that repeat a path: {}": csv.get("repeated_rows", 0),
    }
    sentences += [sentence.format(number) for sentence, number in numbers.items() if number]
    sentences += [
        f"there are no {label} images: this data set can evaluate a model, but not train one, and what rests on both "
        f"classes, such as the ROC AUC, is not defined"
        for label in missing
    ]
    return sentences + [f"there are no {split} images: a run that needs them will stop" for split in empty]


def _count(csv: dict[str, Any], name: str) -> int:
    return int(csv[name]["count"]) if csv else 0


def summary(result: dict[str, Any], title: str) -> str:
    """Formats an audit as a few lines of text."""
    lines = [title, f"  {'':7}{'real':>8}{'fake':>8}   the paper's Table I"]
    for split in SPLITS:
        found, paper = result["counts"][split], TABLE_I[split]
        lines.append(f"  {split:7}{found[REAL]:>8,}{found[FAKE]:>8,}   {paper[REAL]:,} + {paper[FAKE]:,}")
    for name in ("exact", "near"):
        row = result["duplicates"][name]
        lines.append(
            f"  {name} duplicates: {row['groups']} groups of {row['images']} images, "
            f"{row['across_splits']} across splits, {row['across_labels']} across labels"
        )
    if len(result["sources"]) > 1:
        lines.append(f"  sources: {describe_sources(result['sources'])}")
    if result["groups"]["named"]:
        groups = result["groups"]
        lines.append(f"  groups: {groups['named']:,}, {groups['across_splits']} across splits")
    titles = {"unreadable": "unreadable", "left_out": "other files, left out", "excluded": "excluded duplicates"}
    for name, title in titles.items():
        reasons = ", ".join(f"{reason} ({count})" for reason, count in result[name]["reasons"].items())
        lines.append(f"  {title}: {result[name]['count']}" + (f": {reasons}" if reasons else ""))
    if result["shortcuts"]:
        lines.append("  separation by one property of the files alone (ROC AUC, 0.5 is chance):")
        lines.append("    " + ", ".join(f"{row['property']} {row['separation']:.3f}" for row in result["shortcuts"]))
    lines += [f"  WARNING: {warning}" for warning in result["warnings"]]
    return "\n".join(lines)


def groups_across_splits(result: dict[str, Any]) -> int:
    """The number of groups of identical or near-identical images that span several splits."""
    return int(result["duplicates"]["near"]["across_splits"])
