"""Runs in MLflow (``--track mlflow:URI``), next to the files that every run writes; needs the extra ``mlflow``.

The tracking server is never a reason to end a training: what it did not take is sent again with the next epoch.
"""

import os
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from detector_core.config import RunSpec
from detector_core.data.manifest import Manifest
from detector_core.errors import BadConfig, first_line
from detector_core.networks.artifacts import git_commit
from jobs.common.cli import say

PREFIX: Final = "mlflow:"
FOLDER_TAG: Final = "folder"
MAX_METRICS: Final = 1000
"""The most that a server of MLflow takes in one request; a long run that is resumed has more."""
_DEFAULTS: Final = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # MLflow's own 7 wait for four minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_ALLOW_FILE_STORE": "true",  # for mlflow:FOLDER; the client alone has no database
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def check(track: str) -> str:
    """The URI in ``--track mlflow:URI``; an empty text for none.

    Raises:
        BadConfig: it names no server or folder of MLflow, has a password in it, or MLflow is not installed.
    """
    if not track:
        return ""
    uri = track.removeprefix(PREFIX)
    if uri == track or not uri:
        raise BadConfig(f"--track {track}: give mlflow:URI, such as mlflow:http://localhost:5000 or mlflow:mlruns")
    if urlsplit(uri).password:
        raise BadConfig(
            f"--track {PREFIX}{uri.partition('//')[0]}//...: the URI has a password in it, which would be stored with "
            f"the run: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    try:
        import mlflow  # noqa: F401  # takes a second
    except ImportError:
        raise BadConfig(f"--track {track} needs the extra mlflow: uv sync --extra mlflow") from None
    return uri if "://" in uri else str(Path(uri).absolute())


def _tag(folder: str) -> str:
    """A folder as the value of a tag that can be searched for: MLflow's queries have no escapes."""
    return folder.replace("'", "_")


class MlflowRun:
    """One run in the experiment of its data set; a resumed run continues the one it began.

    Raises:
        BadConfig: the server does not answer, or refuses.
    """

    def __init__(self, uri: str, folder: str, spec: RunSpec, data: Manifest) -> None:
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self.uri, self.sent, self.failure = uri, 0, MlflowException
        self.client = MlflowClient(tracking_uri=uri)
        try:
            experiment = self.client.get_experiment_by_name(data.name)
            number = experiment.experiment_id if experiment else self.client.create_experiment(data.name)
            runs = self.client.search_runs([number], filter_string=f"tags.{FOLDER_TAG} = '{_tag(folder)}'")
            self.run_id: str = (runs or [self._create(number, folder, spec, data)])[0].info.run_id
        except MlflowException as error:
            raise BadConfig(f"--track {PREFIX}{uri}: {first_line(error)}") from None

    def _create(self, experiment: str, folder: str, spec: RunSpec, data: Manifest) -> Any:
        from mlflow.entities import Param

        commit = git_commit() or "unknown"
        tags = {FOLDER_TAG: _tag(folder), "fingerprint": data.fingerprint, "git_commit": commit}
        run = self.client.create_run(experiment, run_name=folder.rpartition("/")[2], tags=tags)
        params = [Param(name, str(value)[:500]) for name, value in spec.flat().items()]
        self.client.log_batch(run.info.run_id, params=params)
        return run

    def write_epochs(self, history: list[dict[str, Any]], names: tuple[str, ...]) -> None:
        """Sends what was not sent yet of a run's history, the rows of all epochs so far."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [
            Metric(name, float(row[name]), now, row["epoch"])
            for row in history[self.sent :]
            for name in names
            if row[name] is not None
        ]
        try:
            for start in range(0, len(metrics), MAX_METRICS):
                self.client.log_batch(self.run_id, metrics=metrics[start : start + MAX_METRICS])
            self.sent = len(history)
        except self.failure as error:
            say(f"MLflow at {self.uri} did not take the last epochs, they are sent again: {first_line(error)}")

    def close(self, *, complete: bool) -> None:
        """Ends the run."""
        try:
            self.client.set_terminated(self.run_id, "FINISHED" if complete else "KILLED")
        except self.failure as error:
            say(f"MLflow at {self.uri} was not told that the run has ended: {first_line(error)}")
