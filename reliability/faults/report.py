"""Writes docs/reliability.md from the outcomes of the faults."""

import datetime
import re
from collections.abc import Sequence
from pathlib import Path

from reliability.faults.fault import Fault, Outcome

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
MAKE_ONLY = "`make faults`"
HEAD = """# What happens when something fails

`make faults` (`python -m reliability.faults`) writes this page; do not edit it. It starts the product as a user would,
causes each fault for real, one after another, and checks what the product promises. Last run on {day}; rows kept from
earlier runs are included. Machine: {machine}.

The training run has ten epochs of twelve steps of a tiny network and writes a checkpoint every five steps. Its
validation losses, of all epochs, are compared with those of a run that nothing disturbed. The service has two replicas
behind HAProxy unless a row says otherwise, and four clients send it requests without a pause. The seconds include every
start of the product.

| fault | promise | held | what happened, and what was lost | s |
|---|---|---|---|---|
"""
BEGIN, END = "<!-- attacks: begin -->", "<!-- attacks: end -->"
"""Between these lines, ``python -m reliability.attacks`` writes its section."""
DETAILS = """
How each fault is caused, what is checked, and which test of `make test` causes it every time.

| fault | cause | checks | test |
|---|---|---|---|
"""


def with_attacks(text: str, section: str) -> str:
    """The text of the page with another section of attacks."""
    before, begin, rest = text.partition(BEGIN)
    after = rest.partition(END)[2] if begin else "\n"
    return f"{before.rstrip()}\n\n{BEGIN}\n\n{section.strip()}\n\n{END}{after}"


def attacks_of(text: str) -> str:
    """The section of attacks in the text of the page; empty if it has none."""
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def page(outcomes: Sequence[Outcome], machine: str) -> str:
    """The text of the page, without the section of attacks.

    Args:
        machine: one line that describes the machine, from ``benchmarks.machine``.
    """
    results = [
        f"| {outcome.fault.name} | {outcome.fault.promise} | {outcome.held} | {_cell(outcome.lost)} | "
        f"{outcome.seconds:.0f} |"
        for outcome in outcomes
    ]
    faults = [outcome.fault for outcome in outcomes]
    details = [f"| {fault.name} | {fault.cause} | {fault.checks} | {_test(fault)} |" for fault in faults]
    day = datetime.date.today().isoformat()
    machine = re.sub(r", load [0-9.]+ before the runs", "", machine)  # not that of the rows from earlier runs
    return HEAD.format(day=day, machine=machine) + "\n".join(results) + "\n" + DETAILS + "\n".join(details) + "\n"


def _test(fault: Fault) -> str:
    return f"`{fault.tested_by}`" if fault.tested_by else MAKE_ONLY


def _cell(text: str) -> str:
    """The first line of a text as the cell of a Markdown table."""
    return text.partition("\n")[0].replace("|", "/")
