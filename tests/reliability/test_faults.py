"""The page with the outcomes of all faults, which ``make faults`` causes; some tests of the jobs and the service do."""

from pathlib import Path

import pytest

from reliability.faults.__main__ import FAULTS
from reliability.faults.fault import Outcome, describe_resumption
from reliability.faults.report import PAGE, page

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("starts", "described"),
    [
        (["from epoch 1, step 1"], "was not interrupted"),
        (["from epoch 1, step 1", "from epoch 4, step 11"], "resumed at epoch 4, step 11"),
        (["from epoch 11, step 1"], "had finished all epochs"),
        ([], "was not interrupted"),
    ],
)
def test_an_outcome_says_where_a_run_resumed(starts: list[str], described: str) -> None:
    assert describe_resumption("\n".join(f"run: 2 workers on 127.0.0.1, {start}" for start in starts), 10) == described


def test_the_page_has_the_outcome_of_every_fault_and_every_promise_held() -> None:
    text = PAGE.read_text()
    for fault in FAULTS:
        assert f"| {fault.name} | {fault.promise} | " in text, "run make faults"
        assert f"| {fault.name} | {fault.promise} | NO" not in text


def test_an_outcome_is_one_row_and_a_test_that_causes_a_fault_exists() -> None:
    outcomes = [Outcome(fault=fault, held="yes", lost="a | b\nmore", seconds=1.0) for fault in FAULTS]
    assert page(outcomes, "a machine").count("| yes | a / b | 1 |") == len(FAULTS)
    for fault in FAULTS:
        assert not fault.tested_by or (ROOT / fault.tested_by).exists()
