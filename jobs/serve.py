"""Serve the live model of MODELS: web page and HTTP API.

  python -m jobs.serve
  python -m jobs.serve --models models --port 8080 --host 0.0.0.0
  python -m jobs.serve --models models --config serve.yaml

If no model was promoted to MODELS yet, the starter model is promoted to it: a detector for real faces that comes with
the project (docs/starter.md). --no-starter refuses to start instead, for services that must not serve it by mistake.
When another model is promoted, the service switches to it within seconds.

The job starts a private Ray cluster on this machine, or joins the one at RAY_ADDRESS. The service is reachable only
from this machine, unless --host 0.0.0.0 opens it to the network. --config is a YAML or JSON file with settings (API
keys, limits, feedback, replicas, ...; docs/http-api.md lists them), for example

  http: {api_keys_file: /etc/detector/keys, requests_per_minute: 120}

HAProxy, which comes with Ray Serve, stands in front of the replicas and bounds what a client may cost; the setting
front: {proxy: ray} takes Ray's own proxy instead. On a cluster, submit this job with ray job submit (one replica, a
proxy on the head node), or deploy serve_app/config.yaml for autoscaling and a proxy on every node (docs/operate.md).

When the service is ready, it prints the addresses of the page and the API (and of the Ray dashboard, if
--dashboard-port asks for it) to stdout, and as the last line "stop with Ctrl-C"; there is no JSON result. It serves
until Ctrl-C or SIGTERM, and then exits with 0.
"""

import argparse
import contextlib
import errno
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import ray
import yaml
from pydantic import ValidationError
from ray import serve
from ray.exceptions import RayTaskError

from detector_core import errors
from detector_core.errors import BadConfig, BrokenArtifact, DetectorError, InsufficientResources
from detector_core.registry import starter, versions
from detector_core.registry.predictor import describe
from jobs.common import cli, cluster, ray_environment, temporary_folder
from jobs.common.cli import say
from jobs.common.cluster import PrivateRay
from jobs.common.loopback import free_port
from serve_app import front
from serve_app.app import LOGGING, build
from serve_app.settings import Settings

NAME = "detector"
SYSTEM_CONFIG = {
    # Arguments up to this size are sent with the call, not through the object store; a 224 x 224 crop has 150 kB.
    "max_direct_call_object_size": 2**20,
    "worker_niceness": 0,  # Ray's default of 15 lets any other process of the machine delay answers
}
"""Internal settings of the private Ray."""
REQUEST_LIMIT_S = 60
"""Time limit of Ray's proxy. ``http.timeout_s`` ends a request before that, with an error response of the service."""
NOT_IN_CONFIG = ("models", "model")
"""Settings that --models replaces."""
SERVE_DEPLOY_FIELDS = ("proxy_location", "http_options", "logging_config", "applications")
"""Top-level fields of a file for ``serve deploy``, which --config does not read."""


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("serve", __doc__)
    parser.add_argument(
        "--models", default="models", metavar="MODELS", help="folder or URI that jobs.promote writes to [%(default)s]"
    )
    parser.add_argument(
        "--no-starter",
        action="store_true",
        help="fail if no model was promoted to MODELS; never serve the starter model",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on [%(default)s]")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on [%(default)s]")
    parser.add_argument("--dashboard-port", type=int, metavar="PORT", help="port of the Ray dashboard [no dashboard]")
    parser.add_argument("--config", metavar="FILE", help="settings of the service as YAML or JSON")
    cli.run_server(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> None:
    """Checks the arguments, starts the service and serves until a signal raises KeyboardInterrupt."""
    if not arguments.no_starter:
        starter.promote_if_empty(arguments.models, say)
    model = describe(versions.live(arguments.models))
    settings = read_settings(arguments.config, arguments.models)
    check_port(arguments.host, arguments.port, "--port")
    if arguments.dashboard_port is not None:
        check_port("127.0.0.1", arguments.dashboard_port, "--dashboard-port")
    say(f"starting Ray and the model {model.version} ...")
    address = arguments.host, arguments.port
    with serving(settings, *address, dashboard_port=arguments.dashboard_port) as dashboard:
        base = f"http://{reachable(arguments.host)}:{arguments.port}"
        print(f"page       {base}/\nAPI        {base}/docs")
        if dashboard:
            token = ray_environment.private_token()
            print(f"dashboard  {dashboard}" + (f"   token: {token}" if token else ""))
        print("stop with Ctrl-C", flush=True)
        try:
            _announce_promotions(arguments.models, model.version, settings.poll_s)
        finally:
            say("stopping ...")


def reachable(host: str) -> str:
    """How a URL on this machine names the address that the service listens on."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _announce_promotions(models: str, live: str, every_s: float) -> NoReturn:
    announced = live
    while True:
        time.sleep(every_s)
        with contextlib.suppress(DetectorError, OSError):  # the replicas log it
            live = next(iter(versions.history(models)), announced)
        if live != announced:
            say(f"{live} is live now: the replicas are loading it; /v1/model names it once they have")
            announced = live


@contextlib.contextmanager
def serving(settings: Settings, host: str, port: int, *, dashboard_port: int | None) -> Iterator[str]:
    """Serves for the duration of a ``with`` block, on a private Ray cluster or on the one at ``RAY_ADDRESS``.

    Args:
        dashboard_port: None for no dashboard.

    Yields:
        The URL of the Ray dashboard; empty if there is none.

    Raises:
        InsufficientResources: this Ray cluster has too few cores or GPUs, or no Ray cluster answers at RAY_ADDRESS.
        DetectorError: a replica did not start.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    application, shared = build(settings), bool(os.environ.get("RAY_ADDRESS"))
    private = PrivateRay(
        dashboard=dashboard_port is not None, dashboard_port=dashboard_port, system_config=SYSTEM_CONFIG
    )
    with _front(settings, host, shared=shared) as listen_on, cluster.start(private) as dashboard:
        started = False
        try:
            needed = settings.minimum_resources()
            cluster.check_resources(cpus=needed["CPU"], gpus=needed["GPU"], purpose="the service")
            if shared:
                _say_how_requests_arrive(settings)
            http = {"host": listen_on, "port": port, "request_timeout_s": REQUEST_LIMIT_S}
            try:
                serve.start(proxy_location="HeadOnly", http_options=http, logging_config=LOGGING)
                started = True
                serve.run(application, name=NAME, route_prefix="/")
            except RayTaskError as error:
                raise DetectorError(
                    f"Ray Serve could not start its proxy: {str(error).strip().splitlines()[-1]}"
                ) from None
            except RuntimeError as error:
                raise DetectorError(f"Ray Serve could not start the service: {error}{_replica_error()}") from None
            yield dashboard
        finally:
            if not shared:
                serve.shutdown()
            elif started:  # a shared Ray cluster may serve other applications too
                serve.delete(NAME)


@contextlib.contextmanager
def _front(settings: Settings, host: str, *, shared: bool) -> Iterator[str]:
    """Sets the environment from which a private Ray starts HAProxy, for the duration of a ``with`` block.

    Yields:
        The address for Ray Serve to listen on: with HAProxy, only HAProxy itself listens on ``host``.
    """
    if shared or settings.front.proxy == "ray" or os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "0":
        yield host
        return
    if not front.available():
        say("there is no HAProxy for this platform: serving through Ray's proxy, without the limits under front")
        yield host
        return
    temporary_folder.check()
    with (
        tempfile.TemporaryDirectory(prefix="front-", dir=temporary_folder.path()) as folder,
        tempfile.TemporaryDirectory(prefix="front-", dir="/tmp") as sockets,  # their paths must be short
    ):
        front.install(Path(folder))
        temporary_folder.check_executable(Path(folder, "haproxy"))
        variables = front.environment(settings.front_limits(bind=host), folder, sockets)
        variables |= {name: str(free_port()) for name in front.PORTS}
        with _environment(variables):
            yield "127.0.0.1"


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Sets environment variables for the duration of a ``with`` block; those that the user has set stay."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _say_how_requests_arrive(settings: Settings) -> None:
    """On a shared Ray the environment of its nodes decides, not the settings: says so if they differ."""
    wanted = settings.front_limits()
    actual = ray.get(ray.remote(num_cpus=0)(front.of_this_process).remote())
    if settings.front.proxy == "haproxy" and actual != wanted:
        say(f"{front.difference(actual, wanted)} (docs/operate.md#haproxy-on-a-cluster)")


def _replica_error() -> str:
    """Why a replica failed to start, and what to do, as text for a message; empty if it is not known."""
    application = serve.status().applications.get(NAME)
    deployments = application.deployments.values() if application else ()
    lines = [line for deployment in deployments for line in deployment.message.splitlines()]
    prefix = f"{errors.__name__}."  # that our errors have in a traceback
    _, matched, message = next((line for line in reversed(lines) if prefix in line), "").rpartition(prefix)
    hint = (
        " (jobs.promote --rollback --to MODELS returns to the previous version)"
        if BrokenArtifact.__name__ in message
        else ""
    )
    return f"; {message.strip()}{hint}" if matched else ""


def read_settings(path: str | None, models: str) -> Settings:
    """Reads the file given by --config, for the live model of ``models``. Raises BadConfig."""
    try:
        values = yaml.safe_load(Path(path).read_text()) if path else {}
    except (OSError, yaml.YAMLError) as error:
        raise BadConfig(f"--config {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise BadConfig(f"--config {path} must be a YAML or JSON object of settings (see docs/http-api.md)")
    for name in NOT_IN_CONFIG:
        if name in values:
            raise BadConfig(f"--config {path} sets {name}: remove it, and name the folder of the models with --models")
    try:
        return Settings(**{**values, "models": models})
    except ValidationError as error:
        raise BadConfig(f"--config {path}: {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    first: Any = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{name}: {first['msg']}"
    known = ", ".join(field for field in Settings.model_fields if field not in NOT_IN_CONFIG)
    is_deploy_file = name in SERVE_DEPLOY_FIELDS
    hint = (
        " (this looks like a file for serve deploy: --config takes only what is under its args)"
        if is_deploy_file
        else ""
    )
    return f"there is no setting {name}{hint}; the settings are {known}"


def check_port(host: str, port: int, flag: str) -> None:
    """Raises BadConfig or InsufficientResources if a server cannot listen on this address."""
    if not 0 < port < 2**16:
        raise BadConfig(f"{flag} is {port}: it must be from 1 to 65535")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just released is free
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InsufficientResources(
                    f"port {port} is in use: stop the process that uses it, or choose another {flag}"
                ) from None
            raise BadConfig(f"cannot listen on {host}:{port} ({error.strerror}): choose another {flag}") from None


if __name__ == "__main__":
    main()
