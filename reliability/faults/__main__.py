"""Faults made on purpose, one after another, against the real product: what it promises then, and what was lost.

  make faults
  python -m reliability.faults --keep outcomes.json
  python -m reliability.faults --keep outcomes.json --only "proxy|disk"

Prints a table and, as the last line, one JSON object; writes docs/reliability.md unless --only is given alone. Exits 1
when a promise does not hold. A fault that this machine cannot make is left out, and it is said why. With --keep the
outcomes are kept in a file: those of --only take the place of older ones.
"""

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from benchmarks.machine import describe
from detector_core import storage
from reliability.faults.page import PAGE, page
from reliability.faults.serving import SERVING
from reliability.faults.table import Fault, Outcome, Scene, make
from reliability.faults.training import TRAINING

FAULTS: tuple[Fault, ...] = (*TRAINING, *SERVING)


def main() -> NoReturn:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m reliability.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="PATTERN", help="faults whose name fits")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="outcomes of earlier calls, and of this one")
    given = parser.parse_args()
    machine = describe()
    print(machine, flush=True)
    chosen = [fault for fault in FAULTS if re.search(given.only, fault.name)]
    kept = _read(given.keep) if given.keep else {}
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        scene = Scene(Path(folder))
        for number, fault in enumerate(chosen, 1):
            print(f"{number}/{len(chosen)} {fault.name} ...", file=sys.stderr, flush=True)
            kept[fault.name] = one = make(fault, scene)
            print(f"  {one.held} ({one.seconds:.0f} s): {one.lost}", file=sys.stderr, flush=True)
            if given.keep:
                given.keep.write_text(json.dumps({name: [o.held, o.lost, o.seconds] for name, o in kept.items()}))
    outcomes = [kept.get(fault.name, Outcome(fault=fault, held="not made", lost="", seconds=0)) for fault in FAULTS]
    print(f"\n{'fault':42} {'held':9}{'s':>6}  lost")
    for one in outcomes:
        print(f"{one.fault.name:42} {one.held:9}{one.seconds:6.0f}  {one.lost.partition(chr(10))[0]}")
    if given.keep or not given.only:
        storage.write_bytes(PAGE, page(outcomes, machine).encode())
    held = {one.fault.name: one.held for one in outcomes}
    print(json.dumps({"faults": held, "broken": [name for name, value in held.items() if value == "NO"]}))
    sys.exit(1 if "NO" in held.values() else 0)


def _read(file: Path) -> dict[str, Outcome]:
    found = json.loads(file.read_text()) if file.exists() else {}
    return {
        fault.name: Outcome(
            fault=fault, held=found[fault.name][0], lost=found[fault.name][1], seconds=found[fault.name][2]
        )
        for fault in FAULTS
        if fault.name in found
    }


if __name__ == "__main__":
    main()
