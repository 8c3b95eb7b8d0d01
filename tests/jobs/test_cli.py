"""How a job ends when it is interrupted."""

import argparse
from typing import NoReturn

import pytest

from jobs import cli


@pytest.mark.parametrize(
    ("words", "said"), [((), "run the same command again to go on"), (("with --resume it goes on",), "with --resume")]
)
def test_an_interrupted_job_says_how_to_go_on(
    words: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(_: argparse.Namespace) -> NoReturn:
        raise KeyboardInterrupt(*words)

    with pytest.raises(SystemExit) as ended:
        cli.run(job, argparse.Namespace())
    out, err = capfd.readouterr()
    assert (ended.value.code, out) == (130, "")
    assert said in err.splitlines()[-1]
