"""Runs every benchmark, one after another, and writes what they print to ``benchmarks/RESULTS.md``.

  python -m benchmarks                       all
  python -m benchmarks --quick               fewer rounds and shorter measurements, to check that all of them run
  python -m benchmarks --only serve train    some of them; the sections of the others stay as they were

Each compares itself with its peers in one run and prints a table; ``python -m benchmarks.NAME --help`` explains the
rows. The targets come first, with the measured ratio and whether it was reached. The last line on stdout is JSON.
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
from benchmarks.targets import TARGETS, Outcome

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
    "serve": Benchmark(
        full=("--rounds", "2", "--connections", "1,32"),
        quick=("--rounds", "1", "--seconds", "3", "--connections", "1,32", "--requests", "0"),
    ),
    "scaling": Benchmark(),
}


@dataclass(frozen=True, kw_only=True)
class Section:
    """The output of one benchmark: its table as text, and its targets."""

    name: str
    command: str
    minutes: float
    text: str
    outcomes: list[Outcome]


def main() -> None:
    """Runs the benchmarks and writes the page; exits with 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="short runs; writes no page unless --out is given")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"[{RESULTS.parent.name}/{RESULTS.name}]")
    arguments = parser.parse_args()
    out = arguments.out or (None if arguments.quick else RESULTS)
    machine, sections, failed = describe(), [], []
    print(machine, flush=True)
    for name in arguments.only:
        section = run(name, BENCHMARKS[name].quick if arguments.quick else BENCHMARKS[name].full)
        if section is None:
            failed.append(name)
            continue
        sections.append(section)
        print(f"\n{section.command}\n{section.text}", flush=True)
        if out:
            write(out, machine, sections)
    outcomes = [outcome for section in sections for outcome in section.outcomes]
    print(f"\n{table(outcomes)}")
    values = {"failed": failed, "targets": [asdict(outcome) for outcome in outcomes], "page": str(out) if out else None}
    print(json.dumps(values))
    sys.exit(1 if failed else 0)


def run(name: str, flags: tuple[str, ...]) -> Section | None:
    """Runs one benchmark in a separate process; None if it failed, with its errors on stderr."""
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
        outcomes=[target.read(values) for target in TARGETS if target.benchmark == name],
    )


def table(outcomes: list[Outcome]) -> str:
    """The targets as a Markdown table."""
    rows = [f"| {row.what} | {row.aim} | {row.shown} | {'yes' if row.reached else 'no'} |" for row in outcomes]
    return "\n".join(["| ratio | target | measured | reached |", "|---|---|---|---|", *rows])


def write(out: Path, machine: str, sections: list[Section]) -> None:
    """Writes the page atomically; the sections of benchmarks that did not run stay as they were."""
    kept = _sections(out.read_text()) if out.exists() else {}
    ratios = {name: _rows(text) for name, text in kept.items()}
    for section in sections:
        ratios[section.name] = table(section.outcomes).splitlines()[2:]
        rows = [*table(section.outcomes).splitlines(), ""] if section.outcomes else []
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
        "Written by `python -m benchmarks`. In each run ours and the peers take turns; figures are medians.",
        "Why a target was missed: the profile in [measured.md](../docs/measured.md), and CPU time by process below.",
        "",
        *table([]).splitlines(),
        *(row for name in order for row in ratios[name]),
        "",
    ]
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    temporary.write_text("\n".join([*head, *(kept[name] for name in order)]))
    temporary.replace(out)


def _sections(page: str) -> dict[str, str]:
    parts = re.split(r"^## (\w+)$", page, flags=re.MULTILINE)
    return {name: f"## {name}{text}" for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def _rows(section: str) -> list[str]:
    return [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| ratio")]


if __name__ == "__main__":
    main()
