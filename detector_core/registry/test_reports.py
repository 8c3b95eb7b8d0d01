"""The reports of a model on test splits: they go with it into the registry, and decide whether it may become live."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detector_core import storage
from detector_core.errors import BrokenArtifact, OperationRefused
from detector_core.evaluation import report
from detector_core.networks import artifacts

TEST_SPLIT = "test"
Reports = dict[str, dict[str, Any]]
"""Reports on test splits by the fingerprint of their data set."""


def read(model_folder: Path) -> Reports:
    """The reports of a local model on test splits; reports about other weights are ignored.

    Raises:
        BrokenArtifact: a report is damaged or has another format.
    """
    sha256 = artifacts.read(model_folder).weights_sha256
    reports = {}
    for path in report.report_paths(model_folder, TEST_SPLIT):
        try:
            values = storage.read_json(path)
            if values["split"] != TEST_SPLIT or values["model"]["weights_sha256"] != sha256:
                continue
            if values["format"] != report.FORMAT:
                raise ValueError(f"format is {values['format']!r}, {report.FORMAT} was expected")
            reports[values["data"]["fingerprint"]] = values
        except (ValueError, TypeError, KeyError) as error:
            raise BrokenArtifact(f"{path} cannot be used ({error!r}): evaluate the model again") from None
    return reports


def compare_auc(reports: Reports, others: Reports) -> Iterator[tuple[str, float, float]]:
    """Yields the name and both ROC AUCs for each data set on which two models were evaluated."""
    for fingerprint in reports:
        if fingerprint in others:
            auc, other_auc = (side[fingerprint]["ranking"]["auc"]["value"] for side in (reports, others))
            if auc is not None and other_auc is not None:
                yield reports[fingerprint]["data"]["name"], auc, other_auc


def refuse_if_worse(version: str, reports: Reports, live_version: str, live_reports: Reports) -> None:
    """Raises OperationRefused if a version has a lower ROC AUC than the live one on a data set of both."""
    for name, auc, live_auc in compare_auc(reports, live_reports):
        if auc < live_auc:
            raise OperationRefused(
                f"{version} is worse than the live {live_version} on the test split of {name} "
                f"(AUC {auc:.4f} against {live_auc:.4f}): --force promotes it anyway"
            )
