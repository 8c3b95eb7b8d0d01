"""The quick faults for real, and the page that holds what all of them did; ``make faults`` makes all."""

from pathlib import Path

import pytest

from reliability.faults.__main__ import FAULTS
from reliability.faults.page import PAGE, page
from reliability.faults.table import Fault, Outcome, Scene, make

ROOT = Path(__file__).parents[2]
QUICK = [fault for fault in FAULTS if fault.quick]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("fault", QUICK, ids=[fault.name for fault in QUICK])
def test_a_promise_holds(fault: Fault, scene: Scene) -> None:
    outcome = make(fault, scene)
    if outcome.held == "left out":
        pytest.skip(outcome.lost)
    assert outcome.held == "yes", outcome.lost


def test_the_page_tells_of_every_fault_and_nothing_is_broken() -> None:
    text = PAGE.read_text()
    for fault in FAULTS:
        assert f"| {fault.name} | {fault.promise} | " in text, "run make faults"
        assert f"| {fault.name} | {fault.promise} | NO" not in text


def test_the_page_names_the_test_of_each_fault() -> None:
    outcomes = [Outcome(fault=fault, held="yes", lost="a | b\nmore", seconds=1.0) for fault in FAULTS]
    text = page(outcomes, "a machine")
    assert text.count("| yes | a / b | 1 |") == len(FAULTS)
    for fault in FAULTS:
        assert not fault.elsewhere or (ROOT / fault.elsewhere).exists()
        assert not (fault.elsewhere and fault.quick)
