"""Jobs that run in the test's process."""

import importlib
import json
import warnings
from typing import Any, NamedTuple

import pytest


class Result(NamedTuple):
    """How a job ended: its exit code, the JSON of its last line ({} if it printed none), and its stderr."""

    code: int
    result: dict[str, Any]
    messages: str

    @property
    def last_message(self) -> str:
        """The last line on stderr."""
        return self.messages.splitlines()[-1]


@pytest.fixture
def run_job(capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs a job in this process, which spares it five seconds of imports: ``run_job("train", *arguments)``."""

    def run(verb: str, *arguments: object) -> Result:
        main = importlib.import_module(f"jobs.{verb}").main
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Ray, which are errors under pytest
            with pytest.raises(SystemExit) as exited:
                main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert isinstance(exited.value.code, int)
        return Result(exited.value.code, json.loads(out.splitlines()[-1]) if out else {}, err)

    return run
