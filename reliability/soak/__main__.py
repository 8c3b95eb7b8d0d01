"""Runs the service under a mixed load for a long time, and checks that nothing fails and nothing leaks.

  python -m reliability.soak --minutes 60
  python -m reliability.soak --minutes 0.6 --small

Starts a real ``python -m jobs.serve`` and measures how many requests a second it answers of the mixture in
reliability/soak/mixture.py (images, clips, feedback, decompression bombs, garbage, clients that disconnect). Then it
sends 70% of that rate and promotes another model every five minutes. The model is resnet68 at 64 px with random
weights; --small uses a tiny network and promotes three times. Prints one line a minute, two tables, and one JSON object
as the last line.

Exits 1 if a response is not the expected one, if a promoted model does not go live, or if the service's private memory
or its open files grow by more than the limits below between the warm-up and the end.
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
from reliability.soak.load import CLIENTS, Responses, send_mixture
from reliability.soak.usage import Usage, UsageMonitor
from tests.support.http_service import image_bytes
from tests.support.models import save_model, tiny_spec
from tests.support.serving import Service, running

LOAD = 0.7
"""The rate of requests, as a fraction of the highest rate that the service answers."""
PROMOTE_EVERY_S = 300
LIVE_WITHIN_S = 60
WARM_UP, END = (0.2, 0.3), (0.9, 1.0)
"""The first and the last usage are medians between these fractions of the time."""
MAX_MEMORY_GROWTH_MIB, MAX_OPEN_FILES_GROWTH = 200, 40
"""Limits for the growth of all processes of the service together."""
KEPT_VERSIONS = 3
# The longest time-out that Ray's proxy allows, because other work on the machine makes responses slower. Every format,
# so that every decompression bomb reaches its decoder.
SETTINGS = """
poll_s: 1
detectors: {{min_replicas: 2, max_replicas: 2}}
http: {{feedback_folder: {folder}/feedback, timeout_s: 55, formats: [JPEG, PNG, WEBP, AVIF, GIF, BMP, TIFF]}}
"""


def main() -> NoReturn:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m reliability.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60, help="length of the load at 70%% [60]")
    parser.add_argument(
        "--small", action="store_true", help="a tiny network and three promotions, however long it runs"
    )
    arguments = parser.parse_args()
    print(describe(), flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        result = asyncio.run(soak(Path(folder), 60 * arguments.minutes, small=arguments.small))
    print(json.dumps(result))
    sys.exit(0 if result["held"] else 1)


async def soak(folder: Path, seconds: float, *, small: bool) -> dict[str, Any]:
    """Serves, measures the highest rate, keeps up the load and promotes models; returns the result."""
    promote = partial(_promote, folder, small)
    promote(0)
    (folder / "serve.yaml").write_text(SETTINGS.format(folder=folder))
    (folder / "home").mkdir()
    config = ("--config", str(folder / "serve.yaml"))
    with running(folder / "models", folder / "home", folder / "stderr", *config) as service:
        peak = await _measure_peak(service, seconds)
        responses, peak_rate = Responses(), peak.requests / _peak_s(seconds)
        _log(f"{peak_rate:.1f} requests/s at most, {peak.wrong.total()} wrong; now {LOAD * peak_rate:.1f} requests/s")
        promote_every_s = seconds / 4 if small else PROMOTE_EVERY_S
        with UsageMonitor(service.mark, every_s=min(10.0, seconds / 40)) as monitor:
            done = threading.Event()
            load = asyncio.create_task(send_mixture(service.port, CLIENTS, done.is_set, LOAD * peak_rate, responses))
            promotions = await asyncio.to_thread(
                _promote_and_log, service, promote, responses, monitor, seconds, promote_every_s
            )
            done.set()
            await load
        for problem in peak.problems:
            responses.add_problem("at the highest rate", problem)
        warm, end = monitor.median(*WARM_UP), monitor.median(*END)
        _print_tables(responses, warm, end)
        return _result(responses, warm, end, minutes=seconds / 60, peak_rate=peak_rate, promotions=promotions)


def _peak_s(seconds: float) -> float:
    """For how long the highest rate is measured."""
    return min(60.0, seconds / 4)


async def _measure_peak(service: Service, seconds: float) -> Responses:
    """The responses at the highest rate that the service answers, after a warm-up."""
    peak = Responses()
    await send_mixture(service.port, CLIENTS, _timer(min(60.0, seconds / 8)), None, Responses())
    await send_mixture(service.port, CLIENTS, _timer(_peak_s(seconds)), None, peak)
    return peak


def _timer(seconds: float) -> Callable[[], bool]:
    """A function that returns true once the time is over."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _promote(folder: Path, small: bool, number: int) -> str:
    """Exports and promotes an untrained network as jobs.promote would, a different one each time; its version."""
    size = {"model.init": "none", "preprocess.image_size": 64}
    spec = tiny_spec() if small else spec_for("resnet68-cutout", size)
    model = save_model(
        folder / "runs" / str(number), seed=number, run=f"soak-{number}", auc=0.5 + number / 1000, spec=spec
    )
    add_runtime = partial(promotion.add_runtime, say=lambda _: None)
    version = versions.promote(model, folder / "models", add_files=add_runtime, key="soak")
    versions.prune(folder / "models", KEPT_VERSIONS)
    return version


def _promote_and_log(
    service: Service,
    promote: Callable[[int], str],
    responses: Responses,
    monitor: UsageMonitor,
    seconds: float,
    promote_every_s: float,
) -> int:
    """Promotes models and logs the progress until the time is over; the number of promotions."""
    begun = logged = time.monotonic()
    promotions, counted = 0, 0
    while time.monotonic() - begun < seconds:
        time.sleep(0.2)
        if seconds - promote_every_s / 2 > time.monotonic() - begun > (promotions + 1) * promote_every_s:
            promotions += 1
            version = promote(promotions)
            if not _goes_live(service, version):
                responses.add_problem("promotion", f"{version} was not live within {LIVE_WITHIN_S} s")
        if time.monotonic() - logged > min(60, seconds / 4) and monitor.samples:
            usage, now = monitor.samples[-1], time.monotonic()
            rate, logged, counted = (responses.requests - counted) / (now - logged), now, responses.requests
            _log(
                f"{(now - begun) / 60:.1f} min: {rate:.1f} requests/s, {responses.requests} in all, "
                f"{responses.wrong.total()} wrong, {usage.memory_mib:.0f} MiB, {usage.open_files.total()} open files, "
                f"{promotions} promotions"
            )
    return promotions


def _goes_live(service: Service, version: str) -> bool:
    """Waits until a version answers; false if it does not within LIVE_WITHIN_S."""
    over = _timer(LIVE_WITHIN_S)
    while not over():
        status, text = service.request("POST", "/v1/detect", image_bytes(), "image/jpeg")
        if status == 200 and json.loads(text)["results"][0]["model"]["version"] == version:
            return True
        time.sleep(0.5)
    return False


def _print_tables(responses: Responses, warm: Usage, end: Usage) -> None:
    print(f"\n{'request':24}{'count':>9}{'wrong':>7}{'p50 ms':>9}{'p99 ms':>9}")
    for name, seconds in responses.seconds.items():
        seconds.sort()
        p50, p99 = (1000 * seconds[int(quantile * (len(seconds) - 1))] for quantile in (0.5, 0.99))
        print(f"{name:24}{len(seconds):9}{responses.wrong[name]:7}{p50:9.1f}{p99:9.1f}")
    print(f"\n{'process':24}{'count':>7}{'MiB':>9}{'at end':>9}{'files':>7}{'at end':>7}")
    for kind in sorted(end.processes, key=lambda kind: -end.memory[kind]):
        warm_mib, end_mib = (usage.memory[kind] / 2**20 for usage in (warm, end))
        files = f"{warm.open_files[kind]:7}{end.open_files[kind]:7}"
        print(f"{kind:24}{end.processes[kind]:7}{warm_mib:9.1f}{end_mib:9.1f}{files}")
    files = f"{warm.open_files.total():7}{end.open_files.total():7}"
    print(f"{'all':24}{end.processes.total():7}{warm.memory_mib:9.1f}{end.memory_mib:9.1f}{files}")
    for problem in responses.problems:
        print(f"wrong: {problem}")


def _result(
    responses: Responses, warm: Usage, end: Usage, *, minutes: float, peak_rate: float, promotions: int
) -> dict[str, Any]:
    memory_growth_mib = end.memory_mib - warm.memory_mib
    open_files_growth = end.open_files.total() - warm.open_files.total()
    wrong = responses.wrong.total()
    flat = memory_growth_mib <= MAX_MEMORY_GROWTH_MIB and open_files_growth <= MAX_OPEN_FILES_GROWTH
    return {
        "minutes": round(minutes, 2),
        "peak_requests_per_s": round(peak_rate, 1),
        "requests_per_s": round(responses.requests / (60 * minutes), 1),
        "requests": responses.requests,
        "wrong": wrong,
        "promotions": promotions,
        "models_that_answered": len(responses.versions),
        "memory_mib": [round(warm.memory_mib), round(end.memory_mib)],
        "open_files": [warm.open_files.total(), end.open_files.total()],
        "held": wrong == 0 and flat and promotions > 0 and len(responses.versions) == promotions + 1,
    }


def _log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
