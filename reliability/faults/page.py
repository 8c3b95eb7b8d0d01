"""docs/reliability.md, from what was seen."""

import datetime
import re
from collections.abc import Sequence
from pathlib import Path

from reliability.faults.table import Fault, Outcome

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
SUITE, BY_HAND = "tests/reliability/test_faults.py", "`make faults`"
HEAD = """# What survives what

Written by `make faults` (`python -m reliability.faults`), which makes each fault for real, one after another,
against the
product as it is started by a user; do not edit. Last on {day}, rows that were kept from earlier calls included:
{machine}.

A training here is ten epochs of twelve steps of a tiny network, with a checkpoint every five steps; "curve within"
compares the validation losses of all its epochs with those of a run to which nothing happened. The service has one
detector and two ingresses, and four clients that ask without a pause. Seconds are of the whole fault, with all starts.

| what happens | what is promised | held | what was lost | s |
|---|---|---|---|---|
"""
HOW = """
How each is made, what is looked at, and which test does it every time (`make test`); the others are `make faults` only.

| what happens | made by | looked at | test |
|---|---|---|---|
"""


def page(outcomes: Sequence[Outcome], machine: str) -> str:
    """The whole page."""
    seen = [
        f"| {one.fault.name} | {one.fault.promise} | {one.held} | {_cell(one.lost)} | {one.seconds:.0f} |"
        for one in outcomes
    ]
    how = [f"| {one.fault.name} | {one.fault.made} | {one.fault.checked} | {_test(one.fault)} |" for one in outcomes]
    day = datetime.date.today().isoformat()
    machine = re.sub(r", load [0-9.]+ before the runs", "", machine)  # outcomes may be kept from earlier calls
    return HEAD.format(day=day, machine=machine) + "\n".join(seen) + "\n" + HOW + "\n".join(how) + "\n"


def _test(fault: Fault) -> str:
    found = fault.elsewhere or (SUITE if fault.quick else "")
    return f"`{found}`" if found else BY_HAND


def _cell(text: str) -> str:
    return text.partition("\n")[0].replace("|", "/")
