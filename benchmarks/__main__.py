"""Every benchmark, one after the other, and ``benchmarks/RESULTS.md`` with what they printed.

  python -m benchmarks                       all
  python -m benchmarks --quick               fewer rounds and shorter points, to see that all of them run
  python -m benchmarks --only serve train    some; the others' sections stay as they were

Each measures beside its peers in one run and prints its own table; ``python -m benchmarks.NAME --help`` says what the
rows are. The ratios that were aimed at stand first, with what was found, reached or not. The last line is JSON.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.targets import TARGETS, Found

RESULTS = Path(__file__).parent / "RESULTS.md"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """``python -m benchmarks.NAME``, with the flags of a full and of a quick run."""

    full: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()


BENCHMARKS = {
    "prepare": Benchmark(full=("--images", "2200", "20000"), quick=("--images", "200", "400")),
    "train": Benchmark(quick=("--rounds", "1", "--images", "64")),
    "evaluate": Benchmark(quick=("--rounds", "1", "--images", "16")),
    "runtime": Benchmark(quick=("--rounds", "1")),
    "serve": Benchmark(quick=("--rounds", "1", "--seconds", "3", "--connections", "1,32")),
    "scaling": Benchmark(),
}


@dataclass(frozen=True, kw_only=True)
class Section:
    """What one benchmark said: its table as text, and the ratios that were aimed at."""

    name: str
    command: str
    minutes: float
    text: str
    found: list[Found]


def main() -> None:
    """Runs, shows progress on stderr, writes the page; exits with 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="writes no page unless --out is given")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"[{RESULTS.parent.name}/{RESULTS.name}]")
    given = parser.parse_args()
    out = given.out or (None if given.quick else RESULTS)
    machine, sections, failed = describe(), [], []
    print(machine, flush=True)
    for name in given.only:
        section = run(name, BENCHMARKS[name].quick if given.quick else BENCHMARKS[name].full)
        if section is None:
            failed.append(name)
            continue
        sections.append(section)
        print(f"\n{section.command}\n{section.text}", flush=True)
        if out:
            write(out, machine, sections)
    found = [one for section in sections for one in section.found]
    print(f"\n{table(found)}")
    print(json.dumps({"failed": failed, "found": [asdict(one) for one in found], "page": str(out) if out else None}))
    sys.exit(1 if failed else 0)


def run(name: str, flags: tuple[str, ...]) -> Section | None:
    """One benchmark in a process of its own; None, with what it said on stderr, if it failed."""
    command = ["-m", f"benchmarks.{name}", *flags]
    print(f"python {' '.join(command)} ...", file=sys.stderr, flush=True)
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.rstrip().splitlines()
    if done.returncode or not lines:
        print(f"benchmarks.{name} failed with {done.returncode}: the lines above say why", file=sys.stderr, flush=True)
        return None
    values = json.loads(lines[-1])
    return Section(
        name=name,
        command=f"python {' '.join(command)}",
        minutes=(time.perf_counter() - started) / 60,
        text="\n".join(lines[:-1]),
        found=[target.read(values) for target in TARGETS if target.benchmark == name],
    )


def table(found: list[Found]) -> str:
    """The ratios in Markdown."""
    rows = [f"| {one.what} | {one.aim} | {one.shown} | {'yes' if one.reached else 'no'} |" for one in found]
    return "\n".join(["| ratio | aimed at | found | reached |", "|---|---|---|---|", *rows])


def write(out: Path, machine: str, sections: list[Section]) -> None:
    """The page, beside and then renamed; sections of benchmarks that did not run stay as they were."""
    kept = _sections(out.read_text()) if out.exists() else {}
    ratios = {name: _rows(text) for name, text in kept.items()}
    for section in sections:
        ratios[section.name] = table(section.found).splitlines()[2:]
        rows = [*table(section.found).splitlines(), ""] if section.found else []
        kept[section.name] = "\n".join(
            [
                f"## {section.name}",
                "",
                f"`{section.command}`, {datetime.date.today()}, {section.minutes:.0f} min. {machine}.",
                "",
                *rows,
                "```text",
                section.text,
                "```",
                "",
            ]
        )
    order = [name for name in BENCHMARKS if name in kept]
    head = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks`. Each section is one run, ours and the peers in turns; medians.",
        "",
        *table([]).splitlines(),
        *(row for name in order for row in ratios[name]),
        "",
    ]
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    beside.write_text("\n".join([*head, *(kept[name] for name in order)]))
    beside.replace(out)


def _sections(page: str) -> dict[str, str]:
    parts = re.split(r"^## (\w+)$", page, flags=re.MULTILINE)
    return {name: f"## {name}{text}" for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def _rows(section: str) -> list[str]:
    return [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| ratio")]


if __name__ == "__main__":
    main()
