"""Roll-outs and rollbacks of models and configurations, and autoscaling: under load no request may fail."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from detector_core import storage
from detector_core.networks import artifacts
from detector_core.registry import canaries, versions
from detector_core.registry.canary import Canary, Status
from reliability.faults import load
from reliability.faults.fault import Fault, Workspace, ensure
from reliability.faults.load import (
    ANSWERED,
    ONE_REPLICA,
    REPLICA,
    TWO_REPLICAS,
    Responses,
    disturb_under_load,
    send_requests,
    serving,
    wait_until,
)
from tests.support.http_service import image_bytes
from tests.support.models import save_model
from tests.support.serving import Service

REDEPLOY = """
import sys
import jobs
import ray, yaml
from ray import serve
from serve_app.app import build
from serve_app.settings import Settings
models, config, address = sys.argv[1:]
ray.init(address, logging_level="WARNING")
serve.run(build(Settings(**yaml.safe_load(config), models=models)), name="detector", route_prefix="/")
"""
"""Deploys another configuration on the running service, as a new release would."""
ANOTHER = TWO_REPLICAS.replace("max_batch_size: 2", "max_batch_size: 4")
FOLLOWS_S = 60
"""Every replica must answer with a model that was promoted within this time."""
SHARE, CALLS_ALL_FAKE = 0.5, (0.5, 0.501)
"""The share of a candidate, and thresholds at which the tiny model calls every image fake, instead of uncertain."""
MAX_REPLICAS, CROWD, BUSY_S, SCALED_S = 3, 12, 10, 180
"""Replicas and clients at the most, how long all replicas are then kept busy, and the time limit of scaling."""
ELASTIC = ONE_REPLICA.replace(
    "max_replicas: 1",
    f"max_replicas: {MAX_REPLICAS}, target_ongoing_requests: 2, upscale_delay_s: 1, downscale_delay_s: 3",
)


def redeploy(workspace: Workspace) -> str:
    """Deploys another configuration under load, then the one before again, then one with a single replica.

    The first two replace both replicas.
    """
    with serving(workspace, TWO_REPLICAS) as service:
        (raylet,) = service.pids(b"raylet/raylet\0")
        address = re.search(rb"--gcs-address=([\w.:]+)", Path(f"/proc/{raylet}/cmdline").read_bytes())
        ensure(address, "the address of the private Ray is not in the raylet's command line")
        assert address
        variables = dict(entry.partition("=")[::2] for entry in Path(f"/proc/{raylet}/environ").read_text().split("\0"))
        seen = [set(service.pids(REPLICA))]

        def deploy() -> None:
            for settings in (ANOTHER, TWO_REPLICAS, ONE_REPLICA):
                arguments = [str(service.models), settings, address[1].decode()]
                done = subprocess.run(
                    [sys.executable, "-c", REDEPLOY, *arguments], env=variables, capture_output=True, text=True
                )
                ensure(done.returncode == 0, f"the deployment failed: {done.stderr[-500:]}")
                seen.append(set(service.pids(REPLICA)))

        responses = asyncio.run(disturb_under_load(service, deploy))
        ensure(set(responses.counts) == {ANSWERED}, f"{responses.summary()} {responses.other}")
        seen[-1] = set(service.pids(REPLICA))
        first, another, again, last = seen
        ensure(first.isdisjoint(another | again) and another - again, f"replicas became {seen}")
        ensure(len(last) == 1, f"replicas {first} became {last}")
    return responses.summary()


def promote_and_roll_back(workspace: Workspace) -> str:
    """Serves a model, then promotes another one and rolls back under load."""
    with serving(workspace, TWO_REPLICAS) as service:
        better = save_model(workspace.new_folder() / "better", run="better", seed=1, auc=0.95)
        return promote_and_roll_back_on(service, better)


def promote_and_roll_back_on(service: Service, better: Path) -> str:
    """Promotes a model on a running service under load, and rolls back; each replica must answer with either."""
    before = versions.live(service.models).name

    def served(version: str) -> bool:
        # Requests go to one replica and the other in turn.
        names = {json.loads(service.request("GET", "/v1/model")[1])["version"] for _ in range(6)}
        return names == {version}

    def replace() -> None:
        version = versions.promote(better, service.models)
        ensure(wait_until(lambda: served(version), FOLLOWS_S), f"{version} does not answer on both replicas")
        ensure(versions.rollback(service.models) == before, "the rollback chose another version")
        ensure(wait_until(lambda: served(before), FOLLOWS_S), f"{before} does not answer again on both replicas")

    responses = asyncio.run(disturb_under_load(service, replace))
    ensure(set(responses.counts) == {ANSWERED}, f"{responses.summary()} {responses.other}")
    return responses.summary()


def canary_goes_back(workspace: Workspace) -> str:
    """Under load: a candidate that no replica can load, then one whose verdicts differ from the live ones."""
    with serving(workspace, TWO_REPLICAS) as service:
        folder, models = workspace.new_folder(), service.models
        live = versions.live(models).name
        broken, other = (
            versions.stage(save_model(folder / name, run=name, thresholds=CALLS_ALL_FAKE), models)
            for name in ("broken", "other")
        )
        (models / broken / artifacts.WEIGHTS).write_bytes(b"damaged")
        taken: dict[str, float] = {}

        def try_candidates() -> None:
            for candidate, outcome in ((broken, "not_loaded"), (other, "went_back")):
                started = time.monotonic()
                canary = canaries.start(models, candidate, share=SHARE)
                ensure(wait_until(lambda: bool(_latest(models).outcome), FOLLOWS_S), f"{candidate} did not go back")
                ended = _latest(models)
                ensure((ended.id, ended.outcome) == (canary.id, outcome), f"{candidate} ended as {ended.outcome}")
                taken[outcome] = time.monotonic() - started

        responses = asyncio.run(disturb_under_load(service, try_candidates))
        ensure(set(responses.counts) == {ANSWERED}, f"{responses.summary()} {responses.other}")
        ensure(set(responses.versions) == {live, other}, f"the versions {set(responses.versions)} answered")
        ensure(_answering(service) == {live}, f"{_answering(service)} still answer")
    return (
        f"{responses.summary()}; the damaged candidate was gone after {taken['not_loaded']:.1f} s and answered none, "
        f"the other one answered {responses.versions[other]} and was gone after {taken['went_back']:.1f} s "
        f"({_latest(models).counts.images} images compared)"
    )


def canary_agrees(workspace: Workspace) -> str:
    """Under load: a candidate that agrees, a replica that is killed meanwhile, and the end of the canary."""
    with serving(workspace, TWO_REPLICAS) as service:
        models, before = service.models, versions.live(service.models).name
        model = save_model(workspace.new_folder() / "agrees", run="agrees", thresholds=(0.31, 0.7))
        candidate = versions.stage(model, models)

        def finish() -> None:
            canaries.start(models, candidate, share=SHARE)
            ensure(wait_until(lambda: _compared(models).counts.images > 0, FOLLOWS_S), "nothing is compared")
            os.kill(service.pids(REPLICA)[0], signal.SIGKILL)
            ensure(wait_until(lambda: _compared(models).state == "agrees", FOLLOWS_S), f"{_compared(models)}")
            ensure(canaries.finish(models) == candidate == versions.live(models).name, "the candidate is not live")
            ensure(wait_until(lambda: _compared(models).state == "promoted", FOLLOWS_S), "the canary has not ended")
            ensure(wait_until(lambda: _answering(service) == {candidate}, FOLLOWS_S), "the candidate does not answer")

        responses = asyncio.run(disturb_under_load(service, finish))
        ensure(set(responses.counts) == {ANSWERED}, f"{responses.summary()} {responses.other}")
        images = _latest(models).counts.images
        versions.rollback(models)
        ensure(wait_until(lambda: _answering(service) == {before}, FOLLOWS_S), f"{before} does not answer again")
        replicas = len(storage.names(storage.join(models, canaries.CANARIES, _latest(models).id))) - 1
    return f"{responses.summary()}; {images} images were compared, by {replicas} replicas"


def _latest(models: Path) -> Canary:
    canary = canaries.latest(models)
    ensure(canary, "there is no canary")
    assert canary
    return canary


def _compared(models: Path) -> Status:
    canary = _latest(models)
    return Status.of(canary, canaries.totals(models, canary))


def _answering(service: Service) -> set[str]:
    """The versions that answer about some images."""
    answers = (service.request("POST", "/v1/detect", image_bytes(seed=seed), "image/jpeg")[1] for seed in range(20))
    return {json.loads(answer)["results"][0]["model"]["version"] for answer in answers}


def scale(workspace: Workspace) -> str:
    """Loads a service of one replica until it has MAX_REPLICAS, and then less until it has one again."""
    with serving(workspace, ELASTIC) as service:
        return asyncio.run(_scale(service))


async def _scale(service: Service) -> str:
    responses, phase = Responses(), ["crowd"]

    async def has(count: int) -> float:
        started = time.monotonic()
        reached = await asyncio.to_thread(wait_until, lambda: len(service.pids(REPLICA)) == count, SCALED_S)
        ensure(reached, f"{len(service.pids(REPLICA))} replicas after {SCALED_S} s, expected {count}")
        return time.monotonic() - started

    crowd = asyncio.create_task(send_requests(service, responses, lambda: phase[0] != "crowd", CROWD))
    ordinary = asyncio.create_task(send_requests(service, responses, lambda: phase[0] == "over", 1))
    try:
        grown_s = await has(MAX_REPLICAS)
        await asyncio.sleep(BUSY_S)
        phase[0] = "ordinary"
        shrunk_s = await has(1)
        await asyncio.sleep(load.CALM_S)
    finally:
        phase[0] = "over"
        await asyncio.gather(crowd, ordinary)
    ensure(set(responses.counts) == {ANSWERED}, f"{responses.summary()} {responses.other}")
    return (
        f"{responses.summary()}; {MAX_REPLICAS} replicas ran after {grown_s:.0f} s, and one after {shrunk_s:.0f} more"
    )


ROLLOUT = (
    Fault(
        name="another configuration is deployed under load, and rolled back",
        promise="no response is lost while both replicas are replaced twice, and while the second one is stopped",
        cause="three deployments: another configuration, the one before, and one with one replica less",
        checks="every response, and that both replicas were replaced",
        run=redeploy,
    ),
    Fault(
        name="a model is promoted under load, and rolled back",
        promise="no response is lost, and every replica follows",
        cause="two changes of the live model",
        checks="every response, and which model answers",
        run=promote_and_roll_back,
        tested_by="tests/serve/test_load.py",
    ),
    Fault(
        name="a candidate that cannot be loaded, or disagrees, gets half of the images",
        promise="no response is lost, and the live version answers everything again by itself",
        cause="two canaries on half of the images: damaged weights, then thresholds that call everything fake",
        checks="every response, which version answers, and how the canaries ended",
        run=canary_goes_back,
        tested_by="tests/serve/test_load.py",
    ),
    Fault(
        name="a replica is killed while a candidate that agrees gets half of the images",
        promise="no response is lost, the canary goes on, and the candidate is promoted once it agrees",
        cause="a canary on half of the images, SIGKILL to one of two replicas, then the end of the canary",
        checks="every response, which version answers, and what was compared",
        run=canary_agrees,
    ),
    Fault(
        name="the load grows and falls again",
        promise="replicas are added and stopped, and no response is lost",
        cause=f"{CROWD + 1} clients and then one; autoscaling from one replica to {MAX_REPLICAS} and back",
        checks="every response, and the number of replicas",
        run=scale,
    ),
)
"""What an operator or the load does to a service, in the order of docs/reliability.md."""
