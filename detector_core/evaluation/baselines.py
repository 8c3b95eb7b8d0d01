"""What separates the classes without a network: logistic regressions on file facts and on the radial spectrum.

They are fitted on the training split of a model's own data set and evaluated on the images that the model is evaluated
on. What a network has learnt is what it has above them: export, format and frequencies may separate two classes of
files without a look at a face.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from detector_core import labels
from detector_core.data.audit import CATEGORICAL_PROPERTIES, NUMERIC_PROPERTIES
from detector_core.data.manifest import Manifest
from detector_core.evaluation.intervals import Scores, auc, auc_interval, compare_aucs
from detector_core.evaluation.metrics import undefined_reason

if TYPE_CHECKING:
    import pandas as pd

FILE_FACTS, SPECTRUM = "file_facts", "radial_spectrum"
BASELINES: Final = {FILE_FACTS: "file facts", SPECTRUM: "radial spectrum"}
"""Name and label of each. File facts are the properties that the audit tests one by one (shortcuts)."""
MODEL: Final = "model"
"""The key of the one model of a report in ``above``."""
_COLUMNS: Final = {FILE_FACTS: (*NUMERIC_PROPERTIES, *CATEGORICAL_PROPERTIES), SPECTRUM: ("spectrum",)}
_MOST_CATEGORIES: Final = 50
NO_DATA: Final = "the data set that the model was trained on is not known, or gone"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Scores of a baseline, higher for fakes, in the order of the images; None with the reason if there are none."""

    name: str
    trained_on: str
    score_N: Scores | None = None
    reason: str | None = None


def fit_baselines(own: Manifest | None, rows: "pd.DataFrame", name: str) -> list[Baseline]:
    """Fits the baselines on the training split of a data set and scores other images.

    Args:
        own: the data set that a model was trained on, without the sources that it left out; None if it is not known.
        rows: of a manifest, the images to score.
        name: of the data set of the rows, for messages.
    """
    if own is None:
        return [Baseline(name=baseline, trained_on="?", reason=NO_DATA) for baseline in BASELINES]
    train = own.frame[own.frame["split"] == "train"]
    baselines = []
    for baseline, columns in _COLUMNS.items():
        old = [of for frame, of in ((train, own.name), (rows, name)) if not set(columns) <= set(frame.columns)]
        if old:
            reason: str | None = f"{old[0]} was prepared by an older version: prepare it again"
        else:
            reason = undefined_reason(*((train["label"] == label).sum() for label in labels.LABELS))
        score_N = None if reason else _fit(baseline, train, rows)
        baselines.append(Baseline(name=baseline, trained_on=own.name, score_N=score_N, reason=reason))
    return baselines


def _fit(baseline: str, train: "pd.DataFrame", rows: "pd.DataFrame") -> Scores:
    """The logit of fake of each row by a logistic regression that weighs both classes the same."""
    from sklearn.exceptions import ConvergenceWarning  # takes a second to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    steps = [StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)]
    if baseline == FILE_FACTS:
        steps.insert(0, _encoder())
        inputs: list[Any] = [_facts(frame) for frame in (train, rows)]
    else:
        inputs = [np.stack(frame["spectrum"].tolist()) for frame in (train, rows)]
    model = make_pipeline(*steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # perfectly separable facts have no finite optimum
        model.fit(inputs[0], labels.is_fake(train["label"]))
    score_N: Scores = model.decision_function(inputs[1]).astype(np.float64)
    return score_N


def _encoder() -> Any:
    """Categories as one column each, the rare and the unknown ones together; numbers as they are."""
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder

    one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=_MOST_CATEGORIES, sparse_output=False)
    return ColumnTransformer([("categories", one_hot, list(CATEGORICAL_PROPERTIES))], remainder="passthrough")


def _facts(frame: "pd.DataFrame") -> "pd.DataFrame":
    """File facts without missing values; sizes on a logarithmic scale."""
    numbers = frame[list(NUMERIC_PROPERTIES)].astype("Float64").fillna(-1).astype("float64")
    sizes = ["bytes", "width", "height", "metadata_bytes"]
    numbers[sizes] = np.log1p(numbers[sizes].clip(lower=0))
    return numbers.join(frame[list(CATEGORICAL_PROPERTIES)].astype(object))


def evaluate_baselines(
    baselines: Sequence[Baseline], rows: "pd.DataFrame", models: dict[str, Scores]
) -> list[dict[str, Any]]:
    """The ROC AUC of each baseline, and by how much models exceed it, on the same images.

    Args:
        rows: the images, column label.
        models: the scores of each model in the order of the rows: shape (N,), or one row per seed.

    Returns:
        One entry per baseline: ``name``, ``trained_on``, ``auc`` as value, interval and reason, and ``above``, by model
        the difference in ROC AUC (DeLong's paired test), which is empty without an AUC.
    """
    is_fake = labels.is_fake(rows["label"])
    undefined = undefined_reason(int((~is_fake).sum()), int(is_fake.sum()))
    results = []
    for baseline in baselines:
        entry: dict[str, Any] = {"name": baseline.name, "trained_on": baseline.trained_on, "above": {}}
        reason = baseline.reason or undefined
        if reason or baseline.score_N is None:
            results.append({**entry, "auc": {"value": None, "reason": reason}})
            continue
        low, high = auc_interval(is_fake, baseline.score_N)
        entry["auc"] = {"value": auc(is_fake, baseline.score_N), "low": low, "high": high}
        for model, score_SN in models.items():
            entry["above"][model] = compare_aucs(is_fake, score_SN, baseline.score_N).to_dict()
        results.append(entry)
    return results
