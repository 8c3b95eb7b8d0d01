"""Attacks the service, measures what each attack costs and what an ordinary user sees, and writes docs/reliability.md.

  python -m reliability.attacks                        all attacks, each on a fresh service; ten minutes
  python -m reliability.attacks --only "JPEG|clip"     some of them; the page is not written
  python -m reliability.attacks --json FILE            also writes the outcomes

Attacks made of real faces need DETECTOR_FACES and are skipped without it.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from benchmarks.machine import describe
from detector_core import storage
from detector_core.registry import versions
from reliability.attacks.attack import Attack, Outcome
from reliability.attacks.report import section
from reliability.attacks.run import run
from reliability.attacks.table import ATTACKS
from reliability.faults.report import PAGE, with_attacks
from serve_app.settings import HttpSettings
from tests.support.models import save_model
from tests.support.serving import running


def main() -> NoReturn:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m reliability.attacks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="PATTERN", help="only attacks whose name matches this expression")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes to a file")
    arguments = parser.parse_args()
    machine = describe()
    print(machine, flush=True)
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="attacks-") as folder:
        for attack in ATTACKS:
            if re.search(arguments.only, attack.name) and (os.environ.get("DETECTOR_FACES") or not attack.needs_faces):
                outcomes[attack.name] = attack_service(Path(folder), attack)
                print(f"{attack.name}: {outcomes[attack.name]}", file=sys.stderr, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({name: asdict(outcome) for name, outcome in outcomes.items()}, indent=1))
    if not arguments.only:
        storage.write_bytes(PAGE, with_attacks(PAGE.read_text(), section(outcomes, machine)).encode())
    costly = [attack.name for attack in ATTACKS if attack.name in outcomes and not held(attack, outcomes[attack.name])]
    print(json.dumps({"attacks": {name: asdict(outcome) for name, outcome in outcomes.items()}, "broken": costly}))
    sys.exit(1 if costly else 0)


def attack_service(folder: Path, attack: Attack) -> Outcome:
    """Starts a service that accepts every format and searches faces, and attacks it."""
    here = Path(tempfile.mkdtemp(dir=folder))
    versions.promote(save_model(here / "model", generated=False), here / "models")
    config = here / "config.json"
    formats = {"formats": ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"]}
    http = {"faces": "on", **(formats if "formats" in HttpSettings.model_fields else {})}
    config.write_text(json.dumps({"http": http}))
    with running(here / "models", here / "home", here / "log", "--config", str(config)) as service:
        return asyncio.run(run(service, attack))


def held(attack: Attack, outcome: Outcome) -> bool:
    """Whether an attack cost no more than it may, and nobody else was refused."""
    return outcome.cpu_s <= attack.max_cpu_s and not outcome.refused and not outcome.cut_off


if __name__ == "__main__":
    main()
