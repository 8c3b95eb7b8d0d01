"""A service under a mixed load for a long time: no request fails that should not, memory and open files stay flat.

  python -m reliability.soak --minutes 60
  python -m reliability.soak --minutes 0.6 --small

Starts a real ``python -m serve_app``, measures how many requests of the mixture (images, clips, feedback, bombs,
rubbish, clients that leave: reliability/soak/mixture.py) it answers a second, then asks at 70 % of that, and
promotes another
model every five minutes. The model is resnet68 at 64 px with random weights, exported as a promotion exports it;
--small takes a tiny network, and promotes three times. Prints a line a minute, two tables, and one JSON object as the
last line.

Exits 1 when an answer is not the one that is promised, a promotion is not taken over, or the service's own memory or
open files grow by more than the bounds below from the time after the warm-up to the end.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.machine import describe
from detector_core.networks.variants import spec_for
from detector_core.registry import promotion, versions
from reliability.soak.asking import CLIENTS, Seen, ask
from reliability.soak.watch import Held, Watch
from tests.support.asking import image_bytes
from tests.support.models import save_model, tiny_spec
from tests.support.serving import Service, running

LOAD = 0.7
"""Of what the service answers at most."""
EVERY_S = 300
TAKEN_OVER_S = 60
WARM = (0.2, 0.3)
"""The share of the time over which the first figures are taken, and the last:"""
LAST = (0.9, 1.0)
MEMORY_MIB, HANDLES = 200, 40
"""What all processes of the service together may take more at the end than after the warm-up."""
KEPT = 3
# The longest time-out that Ray's proxy leaves: what other work beside the service costs is waited for.
SETTINGS = """
follow_s: 1
ingresses: {{min_replicas: 2, max_replicas: 2}}
http: {{feedback_folder: {folder}/feedback, timeout_s: 55}}
"""


def main() -> NoReturn:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m reliability.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60, help="of the paced load [60]")
    parser.add_argument("--small", action="store_true", help="a tiny network, and three promotions whatever the time")
    given = parser.parse_args()
    print(describe(), flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        result = asyncio.run(soak(Path(scratch), 60 * given.minutes, small=given.small))
    print(json.dumps(result))
    sys.exit(0 if result["held"] else 1)


async def soak(folder: Path, seconds: float, *, small: bool) -> dict[str, Any]:
    """Serves, measures, asks and promotes; the result."""
    seen, promote = Seen(), partial(_promote, folder, small)
    promote(0)
    (folder / "serve.yaml").write_text(SETTINGS.format(folder=folder))
    (folder / "home").mkdir()
    config = ("--config", str(folder / "serve.yaml"))
    with running(folder / "models", folder / "home", folder / "stderr", *config) as service:
        warm_s, measured_s = min(60.0, seconds / 8), min(60.0, seconds / 4)
        await ask(service.port, CLIENTS, _after(warm_s), None, Seen())
        fast = Seen()
        await ask(service.port, CLIENTS, _after(measured_s), None, fast)
        capacity = fast.requests / measured_s
        _say(f"{capacity:.1f} requests/s at most, {sum(fast.wrong.values())} wrong; now {LOAD * capacity:.1f}")
        every = seconds / 4 if small else EVERY_S
        with Watch(service.mark, every_s=min(10.0, seconds / 40)) as watch:
            done = threading.Event()
            asking = asyncio.create_task(ask(service.port, CLIENTS, done.is_set, LOAD * capacity, seen))
            promoted = await asyncio.to_thread(_meanwhile, service, promote, seen, watch, seconds, every)
            done.set()
            await asking
        for problem in fast.said:
            seen.fail("measuring", problem)
        _print(seen, watch)
        first, last = watch.between(*WARM), watch.between(*LAST)
        return _result(seen, first, last, minutes=seconds / 60, capacity=capacity, promotions=promoted)


def _after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _promote(folder: Path, small: bool, number: int) -> str:
    """Trains nothing, but exports and promotes as jobs.promote does; a new network each time."""
    size = {"model.init": "none", "preprocess.image_size": 64}
    spec = tiny_spec() if small else spec_for("resnet68-cutout", size)
    model = save_model(
        folder / "runs" / str(number), seed=number, run=f"soak-{number}", auc=0.5 + number / 1000, spec=spec
    )
    complete = partial(promotion.complete, say=lambda _: None)
    version = versions.promote(model, folder / "models", complete=complete, key="soak")
    versions.prune(folder / "models", KEPT)
    return version


def _meanwhile(
    service: Service, promote: Callable[[int], str], seen: Seen, watch: Watch, seconds: float, every: float
) -> int:
    """Promotes now and then until the time is over, and says each minute how it goes; how many promotions."""
    begun = told = time.monotonic()
    promoted, counted = 0, 0
    while time.monotonic() - begun < seconds:
        time.sleep(0.2)
        if seconds - every / 2 > time.monotonic() - begun > (promoted + 1) * every:
            promoted += 1
            version = promote(promoted)
            if not _taken_over(service, version):
                seen.fail("promotion", f"{version} does not answer within {TAKEN_OVER_S} s")
        if time.monotonic() - told > min(60, seconds / 4) and watch.samples:
            held, now = watch.samples[-1], time.monotonic()
            rate, told, counted = (seen.requests - counted) / (now - told), now, seen.requests
            _say(
                f"{(now - begun) / 60:.1f} min: {rate:.1f} requests/s, {seen.requests} in all, "
                f"{sum(seen.wrong.values())} wrong, {_mib(held):.0f} MiB, {held.handles.total()} open files, "
                f"{promoted} promotions"
            )
    return promoted


def _taken_over(service: Service, version: str) -> bool:
    """Whether an image is answered from a version, before long."""
    over = _after(TAKEN_OVER_S)
    while not over():
        status, text = service.ask("POST", "/v1/detect", image_bytes(), "image/jpeg")
        if status == 200 and json.loads(text)["results"][0]["model"]["version"] == version:
            return True
        time.sleep(0.5)
    return False


def _print(seen: Seen, watch: Watch) -> None:
    print(f"\n{'request':24}{'answers':>9}{'wrong':>7}{'p50 ms':>9}{'p99 ms':>9}")
    for name, seconds in seen.seconds.items():
        seconds.sort()
        half, most = (1000 * seconds[int(share * (len(seconds) - 1))] for share in (0.5, 0.99))
        print(f"{name:24}{len(seconds):9}{seen.wrong[name]:7}{half:9.1f}{most:9.1f}")
    first, last = watch.between(*WARM), watch.between(*LAST)
    print(f"\n{'process':24}{'count':>7}{'MiB':>9}{'then':>9}{'files':>7}{'then':>7}")
    for kind in sorted(last.processes, key=lambda kind: -last.memory[kind]):
        before, after = (held.memory[kind] / 2**20 for held in (first, last))
        count, files, then = last.processes[kind], first.handles[kind], last.handles[kind]
        print(f"{kind:24}{count:7}{before:9.1f}{after:9.1f}{files:7}{then:7}")
    print(f"{'all':24}{last.processes.total():7}{_mib(first):9.1f}{_mib(last):9.1f}", end="")
    print(f"{first.handles.total():7}{last.handles.total():7}")
    for line in seen.said:
        print(f"wrong: {line}")


def _result(seen: Seen, first: Held, last: Held, *, minutes: float, capacity: float, promotions: int) -> dict[str, Any]:
    grown, handles = _mib(last) - _mib(first), last.handles.total() - first.handles.total()
    wrong = sum(seen.wrong.values())
    return {
        "minutes": round(minutes, 2),
        "capacity_per_s": round(capacity, 1),
        "asked_per_s": round(seen.requests / (60 * minutes), 1),
        "requests": seen.requests,
        "wrong": wrong,
        "promotions": promotions,
        "models_that_answered": len(seen.versions),
        "memory_mib": [round(_mib(first)), round(_mib(last))],
        "handles": [first.handles.total(), last.handles.total()],
        "held": not wrong and grown <= MEMORY_MIB and handles <= HANDLES and promotions > 0,
    }


def _mib(held: Held) -> float:
    return held.memory.total() / 2**20


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
