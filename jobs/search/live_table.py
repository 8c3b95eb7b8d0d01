"""What a search shows while it runs: a table of its trials, and the files of each trial for TensorBoard."""

import sys
import time
from typing import Any

from ray.tune import Callback
from tqdm import tqdm

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.data.manifest import Manifest
from detector_core.errors import BrokenArtifact
from detector_core.training import lr_search
from detector_core.training.lr_search import Trial
from jobs.run.log import RunLog
from jobs.run.request import RUN, read_run_json
from jobs.search.plan import LEARNING_RATE, varied

LOG_EVERY_S = 15.0
_STATUS = {"PENDING": "waiting", "RUNNING": "running", "PAUSED": "waiting", "ERROR": lr_search.FAILED}


class TrialTable(Callback):
    """Prints the table of trials when an epoch or a trial ends, at most every LOG_EVERY_S seconds."""

    def __init__(self, objective: str) -> None:
        self.objective = objective
        self.histories: dict[str, list[dict[str, Any]]] = {}
        self.printed = 0.0

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Any],
        trial: Any,
        result: dict[str, Any],
        **info: Any,  # noqa: ARG002
    ) -> None:
        history = self.histories.setdefault(trial.trial_id, [])
        history[:] = [row for row in history if row["epoch"] < result["epoch"]] + [result]
        self._print(trials)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        self._print(trials)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        self._print(trials)

    def _print(self, trials: list[Any]) -> None:
        now = time.monotonic()
        if now - self.printed < LOG_EVERY_S:
            return
        self.printed = now
        rows = [to_trial(trial, self.histories.get(trial.trial_id, [])) for trial in trials]
        tqdm.write(f"\n{lr_search.format_table(rows, self.objective)}\n", file=sys.stderr)


def to_trial(trial: Any, history: list[dict[str, Any]]) -> Trial:
    """A trial of Tune as it stands; one that ended before its last epoch was stopped by the scheduler."""
    ended = lr_search.COMPLETED if history and history[-1]["epoch"] == history[-1]["epochs"] else lr_search.STOPPED
    return Trial(
        name=trial.trial_id,
        learning_rate=trial.config[LEARNING_RATE],
        status=_STATUS.get(trial.status, ended),
        seconds=sum(row["seconds"] for row in history),
        history=history,
        settings=varied(trial.config),
    )


class TrialLogs:
    """One RunLog per trial, opened when its first epoch ends and closed at the end of the ``with`` block."""

    def __init__(self, data: Manifest, folder: str) -> None:
        self.data, self.folder = data, folder
        self.logs: dict[str, RunLog] = {}

    def __enter__(self) -> "TrialLogs":
        return self

    def __exit__(self, *_: object) -> None:
        for log in self.logs.values():
            log.close()

    def write_epochs(self, message: dict[str, Any]) -> None:
        """Updates a trial's files to the history in a message of the board."""
        name = message["run"]
        if name not in self.logs:
            folder = storage.join(self.folder, name)
            run_json = read_run_json(folder)
            if run_json is None:
                raise BrokenArtifact(f"{folder} has no {RUN}: it is not the folder of a trial")
            self.logs[name] = RunLog(folder, RunSpec.from_dict(run_json["spec"]), self.data, run_json.get("track", ""))
        self.logs[name].write_epochs(message["history"])
