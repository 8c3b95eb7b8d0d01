"""Faults made on purpose, one after another, against the real product: what it promises then, and what was lost.

  make faults
  python -m tests.faults --only "proxy|disk"

Prints a table and, as the last line, one JSON object; writes docs/reliability.md after a run of all of them. Exits 1
when a promise does not hold. A fault that this machine cannot make is left out, and it is said why.
"""

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from benchmarks.machine import describe
from tests.faults.page import PAGE, page
from tests.faults.serving import SERVING
from tests.faults.table import Fault, Scene, make
from tests.faults.training import TRAINING

FAULTS: tuple[Fault, ...] = (*TRAINING, *SERVING)


def main() -> NoReturn:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="PATTERN", help="faults whose name fits; the page is not written")
    given = parser.parse_args()
    machine = describe()
    print(machine, flush=True)
    chosen = [fault for fault in FAULTS if re.search(given.only, fault.name)]
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        scene = Scene(Path(folder))
        for number, fault in enumerate(chosen, 1):
            print(f"{number}/{len(chosen)} {fault.name} ...", file=sys.stderr, flush=True)
            outcomes.append(make(fault, scene))
            print(f"  {outcomes[-1].held}: {outcomes[-1].lost}", file=sys.stderr, flush=True)
    print(f"\n{'fault':42} {'held':9}{'s':>6}  lost")
    for one in outcomes:
        print(f"{one.fault.name:42} {one.held:9}{one.seconds:6.0f}  {one.lost.splitlines()[0]}")
    if not given.only:
        PAGE.write_text(page(outcomes, machine))
    held = {one.fault.name: one.held for one in outcomes}
    print(json.dumps({"faults": held, "broken": [name for name, value in held.items() if value == "NO"]}))
    sys.exit(1 if "NO" in held.values() else 0)


if __name__ == "__main__":
    main()
