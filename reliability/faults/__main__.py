"""Causes faults on purpose, one after another, and checks what the product promises in each case.

  make faults
  python -m reliability.faults --outcomes outcomes.json
  python -m reliability.faults --outcomes outcomes.json --only "proxy|disk"

Prints a table and, as the last line, one JSON object. Exits 1 if a promise did not hold. Faults that this machine
cannot cause are skipped, and the table says why. --outcomes keeps the results in a file, so that a later run of some
faults replaces only theirs. docs/reliability.md is rewritten, except by a run of some faults without --outcomes.
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
from reliability.faults.fault import Fault, Outcome, Workspace, cause
from reliability.faults.report import PAGE, attacks_of, page, with_attacks
from reliability.faults.rollout import ROLLOUT
from reliability.faults.serving import SERVING
from reliability.faults.training import TRAINING

FAULTS: tuple[Fault, ...] = (*TRAINING, *SERVING, *ROLLOUT)


def main() -> NoReturn:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m reliability.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="PATTERN", help="only faults whose name matches this expression")
    parser.add_argument(
        "--outcomes", type=Path, metavar="FILE", help="read earlier outcomes here, and add the new ones"
    )
    arguments = parser.parse_args()
    machine = describe()
    print(machine, flush=True)
    chosen = [fault for fault in FAULTS if re.search(arguments.only, fault.name)]
    outcomes = _read(arguments.outcomes) if arguments.outcomes else {}
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        workspace = Workspace(Path(folder))
        for number, fault in enumerate(chosen, 1):
            print(f"{number}/{len(chosen)} {fault.name} ...", file=sys.stderr, flush=True)
            outcomes[fault.name] = outcome = cause(fault, workspace)
            print(f"  {outcome.held} ({outcome.seconds:.0f} s): {outcome.lost}", file=sys.stderr, flush=True)
            if arguments.outcomes:
                _write(arguments.outcomes, outcomes)
    rows = [outcomes.get(fault.name, Outcome(fault=fault, held="not run", lost="", seconds=0)) for fault in FAULTS]
    print(f"\n{'fault':42} {'held':9}{'s':>6}  lost")
    for row in rows:
        print(f"{row.fault.name:42} {row.held:9}{row.seconds:6.0f}  {row.lost.partition(chr(10))[0]}")
    if arguments.outcomes or not arguments.only:
        attacks = attacks_of(PAGE.read_text())
        storage.write_bytes(PAGE, with_attacks(page(rows, machine), attacks).encode())
    held = {row.fault.name: row.held for row in rows}
    print(json.dumps({"faults": held, "broken": [name for name, value in held.items() if value == "NO"]}))
    sys.exit(1 if "NO" in held.values() else 0)


def _read(file: Path) -> dict[str, Outcome]:
    kept = json.loads(file.read_text()) if file.exists() else {}
    return {fault.name: Outcome(fault=fault, **kept[fault.name]) for fault in FAULTS if fault.name in kept}


def _write(file: Path, outcomes: dict[str, Outcome]) -> None:
    kept = {
        name: {"held": outcome.held, "lost": outcome.lost, "seconds": outcome.seconds}
        for name, outcome in outcomes.items()
    }
    file.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
