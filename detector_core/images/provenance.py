"""What a file says about where it comes from. It is evidence of its own, and never part of a score.

Anybody can write such a statement into a file or remove it; only a signature (C2PA) ties it to a signer and to the
pixels. So each claim says how far it can be trusted, and a file without any claim says nothing at all.

Files of strangers are parsed in warm child processes with limited memory and CPU time.
"""

import dataclasses
import json
import sys
import time
import traceback
from typing import Any, Final

from detector_core.images import child as children
from detector_core.images import claims, statements
from detector_core.images.budget import CpuBudget, OverBudget
from detector_core.images.child import Cancellation, Crashed, MemoryLimit, WarmChildren, message
from detector_core.images.claims import Claim, Kind
from detector_core.images.statements import Statements

CPU_S, CPU_S_PER_MEGABYTE = 1.0, 0.05
"""CPU time that reading the claims of a file may take. A signed photo takes 0.003 s."""
MEMORY_BYTES, MEMORY_FACTOR = 2**28, 4
"""Memory that a child may use: the fixed number, and a multiple of the file's size."""
CHILDREN: Final = WarmChildren(__name__, "reads where files come from")


def read(
    data: bytes, *, signers: str = "", budget: CpuBudget | None = None, cancellation: Cancellation | None = None
) -> tuple[Claim, ...]:
    """The claims of an image or a clip, in a child process if there is anything to read.

    Args:
        signers: certificates of signers that are trusted, as PEM.
        budget: CPU time that this and other work may take together.
        cancellation: ends the child.

    Raises:
        Cancelled: ``cancellation`` was cancelled.
    """
    found = statements.find(data)
    if not found:
        return ()
    cancellation, budget = cancellation or Cancellation(), budget or CpuBudget()
    borrowed, finished = CHILDREN.borrow(), False
    try:
        with cancellation.on_cancel(borrowed.kill), budget.grant(CPU_S + CPU_S_PER_MEGABYTE * len(data) / 1e6) as grant:
            memory_bytes = MEMORY_BYTES + MEMORY_FACTOR * len(data)
            task = message(bytes=len(data), signers=signers, cpu_s=grant.seconds, memory_bytes=memory_bytes)
            borrowed.write(task + data)
            fields = borrowed.read()
            grant.used = fields["cpu_s"]
            finished = True
        children.raise_reported(fields)
        return tuple(Claim(**claim) for claim in fields["claims"])
    except OverBudget:
        return (_unreadable(found, "reading it takes too much CPU time"),)
    except Crashed as error:
        cancellation.check()
        return (_unreadable(found, f"reading it failed ({error})"),)
    finally:
        CHILDREN.give_back(borrowed, reusable=finished)


def _unreadable(found: Statements, problem: str) -> Claim:
    kind: Kind = "c2pa" if found.media_type else "iptc" if found.xmp else "camera" if found.exif else "generator_text"
    return Claim(kind=kind, standing="broken", problem=problem)


def child() -> None:  # pragma: no cover - runs in a child process, which cannot write a coverage file
    """The child's main function: reads files from stdin, writes their claims to stdout."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    claims.load_readers()
    memory = MemoryLimit()
    stdout.write(message(ready=True))
    stdout.flush()
    while line := stdin.readline():
        task = json.loads(line)
        data = stdin.read(task["bytes"])
        memory.allow(task["memory_bytes"])
        children.limit_cpu(task["cpu_s"])
        started = time.process_time()
        try:
            fields: dict[str, Any] = {
                "claims": [dataclasses.asdict(claim) for claim in claims.read_here(data, task["signers"])]
            }
        except MemoryError:
            raise SystemExit("too much memory") from None
        except Exception:
            fields = {"bug": traceback.format_exc()}
        stdout.write(message(**fields, cpu_s=time.process_time() - started))
        stdout.flush()
