"""Makes every alert fire: a real service, Prometheus and Alertmanager, and a receiver in the place of a pager.

  python -m reliability.alerts

The rules are those of docs/monitoring/alerts.yml with seconds for minutes, the routes those of
docs/monitoring/alertmanager.yml. Each alert gets a real cause, must reach the receiver of its severity, and must be
resolved once the cause is gone. Takes five minutes; needs Debian's prometheus and prometheus-alertmanager.

Prints a table and, as the last line, one JSON object. Exits with 1 if an alert did not fire as it should, and with 77
if a program is missing.
"""

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from benchmarks.machine import describe
from detector_core.registry import versions
from jobs.common.loopback import free_port
from reliability.alerts.causes import CAUSES, TIMEOUT_S, Cause, Scene, Traffic
from reliability.alerts.monitoring import PROGRAMS, Receiver, alerts, monitoring
from tests.support.serving import Service, running
from tests.support.tagged import hashed_dataset, live_model, tagged_bytes

MISSING_PROGRAM = 77
FIRES_WITHIN_S, RESOLVED_WITHIN_S, BEFORE_S = 90, 90, 30
SETTINGS = """
layout: apart
poll_s: 0.5
threads: 1
detector_cpus: 0.2
ingress_cpus: 0.1
"""
LASTING = {"DetectorScoresDrift", "DetectorGone"}
"""Alerts that are not resolved: scores stay in the window of the drift, and a killed service stays away."""


def main() -> NoReturn:
    """Runs the command line."""
    argparse.ArgumentParser(
        prog="python -m reliability.alerts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    for program in PROGRAMS:
        if not shutil.which(program):
            print(f"there is no {program}: apt-get install {program}", file=sys.stderr)
            sys.exit(MISSING_PROGRAM)
    print(describe(), flush=True)
    with tempfile.TemporaryDirectory(prefix="alerts-", dir="/tmp") as folder:
        seconds, problems = play(Path(folder))
    print(f"\n{'alert':26}{'fired after':>12}  cause")
    for cause in CAUSES:
        print(f"{cause.alert:26}{seconds.get(cause.alert, float('nan')):10.0f} s  {cause.what}")
    print(json.dumps({"fired_after_s": seconds, "problems": problems}))
    sys.exit(1 if problems else 0)


def play(folder: Path) -> tuple[dict[str, float], list[str]]:
    """Causes all alerts; returns the seconds until each was received, and what went wrong."""
    dataset = hashed_dataset(folder, {"train": 60, "valid": 30, "test": 24})
    models, feedback = folder / "models", folder / "feedback"
    versions.promote(live_model(folder / "live", dataset, balanced=True), models)
    (folder / "home").mkdir()
    settings = {"feedback_folder": str(feedback), "faces": "off", "timeout_s": TIMEOUT_S, "max_open": 12}
    (folder / "serve.yaml").write_text(f"{SETTINGS}http: {json.dumps(settings)}\n")
    flags = ("--config", str(folder / "serve.yaml"), "--dashboard-port", str(free_port()))
    environment = {"RAY_metrics_report_interval_ms": "1000", "RAY_TMPDIR": str(folder)}
    seconds, problems = dict[str, float](), list[str]()
    with running(models, folder / "home", folder / "log", *flags, **environment) as service:
        real, fake = (_image_called(service, verdict) for verdict in ("real", "fake"))
        scene = Scene(service=service, traffic=Traffic(service, real), fake=fake, feedback=feedback)
        session = (folder / "ray" / "session_latest").resolve()
        with monitoring(session, folder / "monitoring") as receiver, scene.traffic.running():
            time.sleep(BEFORE_S)
            for cause in CAUSES:
                try:
                    seconds[cause.alert] = cause_one(cause, scene, receiver)
                except AssertionError as error:
                    problems.append(f"{cause.alert}: {error}")
                print(f"{cause.alert}: {seconds.get(cause.alert) or problems[-1]}", file=sys.stderr, flush=True)
    missing = set(alerts()) - {cause.alert for cause in CAUSES}
    return seconds, [*problems, *(f"{alert} has no cause" for alert in missing)]


def cause_one(cause: Cause, scene: Scene, receiver: Receiver) -> float:
    """Causes one alert and undoes it; returns the seconds until it was received. Raises AssertionError."""
    before = 0 if cause.alert in LASTING else len(receiver.received)
    started = time.monotonic()
    with cause.disturb(scene):
        path = receiver.wait_for(cause.alert, "firing", FIRES_WITHIN_S, before)
        fired_s = time.monotonic() - started
        severity = alerts()[cause.alert]
        assert path == f"/{severity}", f"it went to {path}, and its severity is {severity}"
        assert _ready(scene.service) == cause.ready, f"/readyz did not answer {cause.ready}"
    if cause.alert not in LASTING:
        receiver.wait_for(cause.alert, "resolved", RESOLVED_WITHIN_S, before)
    return round(fired_s, 1)


def _ready(service: Service) -> int | None:
    with contextlib.suppress(OSError):
        return service.request("GET", "/readyz")[0]
    return None


def _image_called(service: Service, verdict: str) -> bytes:
    for seed in range(1000, 1200):
        data = tagged_bytes(seed, "fake")
        status, text = service.request("POST", "/v1/detect", data, "image/png")
        if status == 200 and json.loads(text)["results"][0]["verdict"] == verdict:
            return data
    raise AssertionError(f"the model calls no image {verdict}")


if __name__ == "__main__":
    main()
