"""The table of attacks in docs/reliability.md."""

import datetime
import re
from collections.abc import Mapping

from reliability.attacks.attack import Outcome
from reliability.attacks.table import ATTACKS

HEAD = """## What an attack costs

`python -m reliability.attacks` writes this table. Each attack runs against a fresh service on loopback that accepts
every format and searches faces, while an ordinary user sends one image after another. "Before" is the service without
bounds (commit fee5771), on the same machine. CPU-seconds are those of the replicas and their decoders, without what the
ordinary user costs. Of 10,000 damaged images and 500 damaged clips, none was answered with a 5xx or cost more than
[a second](measured.md#load). Last run on {day}. Machine: {machine}.

| attack | bytes | CPU-seconds before | CPU-seconds | answers | the ordinary user before | the ordinary user |
|---|---|---|---|---|---|---|
"""


def section(outcomes: Mapping[str, Outcome], machine: str) -> str:
    """The section of the page, with a row for each attack that was run."""
    rows = [
        f"| {attack.name} | {_size(attack.make()[0])} | {_cpu(attack.before)} | {_cpu(outcomes[attack.name])} | "
        f"{outcomes[attack.name].answers} | {_user(attack.before)} | {_user(outcomes[attack.name])} |"
        for attack in ATTACKS
        if attack.name in outcomes
    ]
    machine = re.sub(r", load [0-9.]+ before the runs", "", machine)
    return HEAD.format(day=datetime.date.today().isoformat(), machine=machine) + "\n".join(rows) + "\n"


def _size(body: bytes) -> str:
    return f"{len(body) / 1e6:.1f} MB" if len(body) > 1e6 else f"{len(body) / 1e3:.0f} KB"


def _cpu(outcome: Outcome) -> str:
    return f"{'more than ' if outcome.cut_off else ''}{outcome.cpu_s:.1f}"


def _user(outcome: Outcome) -> str:
    refused = f"{outcome.refused} of {outcome.asked} refused" if outcome.refused else "none refused"
    return f"{refused}, {outcome.slowest_s:.1f} s at most"
