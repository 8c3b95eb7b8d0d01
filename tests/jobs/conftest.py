"""One Ray for the jobs that need none of their own, and jobs that run in the test's process."""

import importlib
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.support.cluster import head_node


class Result(NamedTuple):
    """How a job ended: its exit code, the JSON of its last line ({} if it printed none), and its stderr."""

    code: int
    result: dict[str, Any]
    messages: str

    @property
    def last_message(self) -> str:
        """The last line on stderr."""
        return self.messages.splitlines()[-1]


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """The address of a cluster with two cores that all tests of a session share."""
    with head_node(token=os.environ["RAY_AUTH_TOKEN"]) as head:
        yield head.address


@pytest.fixture
def shared_ray(ray_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes jobs use the shared cluster, in this process and in those it starts."""
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    return ray_address


@pytest.fixture
def run_job(capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs a job in this process, which spares it five seconds of imports: ``run_job("train", *arguments)``."""

    def run(verb: str, *arguments: object) -> Result:
        with pytest.raises(SystemExit) as exited:
            importlib.import_module(f"jobs.{verb}").main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert isinstance(exited.value.code, int)
        return Result(exited.value.code, json.loads(out.splitlines()[-1]) if out else {}, err)

    return run
