"""Serve the live model of MODELS: web page, HTTP interface and Ray dashboard.

  python -m jobs.serve
  python -m jobs.serve --models models --port 8080 --host 0.0.0.0
  python -m jobs.serve --models models --config serve.yaml

If nothing was promoted to MODELS yet, the starter model is: a detector for real faces that comes with the project
(docs/starter.md). Prints the addresses as soon as the model answers, and serves until Ctrl-C or SIGTERM. If another
model is promoted, the service switches to it within seconds. Starts a private Ray on this machine, or joins the one at
RAY_ADDRESS. The address 127.0.0.1 is reachable from this machine only; --host 0.0.0.0 opens the service to the network.
--config names a YAML or JSON file with fields of serve_app.settings.Settings (keys, limits, feedback, replicas, ...),
for example

  http: {api_keys_file: /etc/detector/keys, requests_per_minute: 120}

On a cluster, deploy serve_app/config.yaml instead (docs/operate.md).
"""

import argparse
import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import ValidationError
from ray import serve

from detector_core import errors
from detector_core.errors import BadConfig, BrokenArtifact, DetectorError, InsufficientResources
from detector_core.registry import starter, versions
from detector_core.registry.predictor import describe
from jobs.common import cli, cluster, ray_environment
from jobs.common.cli import say
from jobs.common.cluster import PrivateRay
from serve_app.app import LOGGING, build
from serve_app.settings import Settings

NAME = "detector"
INLINE_BYTES = 2**20
"""Crops up to this size travel within the call instead of through the object store: 150 KB at 224 pixels."""
REQUEST_LIMIT_S = 60
"""Limit of Ray's proxy; ``http.timeout_s`` ends a request earlier, with an error answer of the service."""
SERVE_DEPLOY_FIELDS = ("proxy_location", "http_options", "logging_config", "applications")
"""Top-level fields of a file for ``serve deploy``, which --config does not read."""


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("serve", __doc__ or "")
    parser.add_argument(
        "--models", default="models", metavar="MODELS", help="folder or URI that jobs.promote writes to [%(default)s]"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on [%(default)s]")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on [%(default)s]")
    parser.add_argument("--dashboard-port", type=int, metavar="PORT", help="port of the Ray dashboard [first free one]")
    parser.add_argument("--config", metavar="FILE", help="settings of the service as YAML or JSON")
    cli.run_server(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> None:
    """Checks, serves, and waits for a signal (KeyboardInterrupt)."""
    starter.promote_if_empty(arguments.models, say)
    model = describe(versions.live(arguments.models))
    settings = read_settings(arguments.config, arguments.models)
    check_port(arguments.host, arguments.port, "--port")
    if arguments.dashboard_port is not None:
        check_port("127.0.0.1", arguments.dashboard_port, "--dashboard-port")
    say(f"starting Ray and the model {model.version} ...")
    address = arguments.host, arguments.port
    with serving(settings, *address, dashboard_port=arguments.dashboard_port) as dashboard:
        base = f"http://{'127.0.0.1' if arguments.host == '0.0.0.0' else arguments.host}:{arguments.port}"
        print(f"page       {base}/\nAPI        {base}/docs")
        if dashboard:
            token = ray_environment.private_token()
            print(f"dashboard  {dashboard}" + (f"   it asks for this token: {token}" if token else ""))
        print("stop with Ctrl-C", flush=True)
        try:
            _announce_promotions(arguments.models, model.version, settings.poll_s)
        finally:
            say("stopping ...")


def _announce_promotions(models: str, live: str, every_s: float) -> NoReturn:
    announced = live
    while True:
        time.sleep(every_s)
        with contextlib.suppress(DetectorError, OSError):  # the replicas report it in their log
            live = next(iter(versions.history(models)), announced)
        if live != announced:
            say(f"{live} is live now: the replicas are loading it, /v1/model says when they have")
            announced = live


@contextlib.contextmanager
def serving(settings: Settings, host: str, port: int, *, dashboard_port: int | None) -> Iterator[str]:
    """Serves for the duration of a ``with`` block, on a private Ray or on the one at ``RAY_ADDRESS``.

    Yields:
        The URL of the Ray dashboard; empty if there is none.

    Raises:
        InsufficientResources: this Ray has too few cores, or none answers.
        DetectorError: a replica did not start.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    application, shared = build(settings), bool(os.environ.get("RAY_ADDRESS"))
    system_config = {"max_direct_call_object_size": INLINE_BYTES}
    private = PrivateRay(dashboard=True, dashboard_port=dashboard_port, system_config=system_config)
    with cluster.start(private) as dashboard:
        started = False
        try:
            needed = settings.minimum_resources()
            cluster.check_room(cpus=needed["CPU"], gpus=needed["GPU"], purpose="the service")
            http = {"host": host, "port": port, "request_timeout_s": REQUEST_LIMIT_S}
            serve.start(proxy_location="HeadOnly", http_options=http, logging_config=LOGGING)
            started = True
            try:
                serve.run(application, name=NAME, route_prefix="/")
            except RuntimeError as error:
                raise DetectorError(f"Ray Serve could not start the service: {error}{_replica_error()}") from None
            yield dashboard
        finally:
            if not shared:
                serve.shutdown()
            elif started:  # other applications may be served on a shared Ray
                serve.delete(NAME)


def _replica_error() -> str:
    """The error with which a replica failed to start, and what to do; empty if there is none."""
    application = serve.status().applications.get(NAME)
    deployments = application.deployments.values() if application else ()
    lines = [line for deployment in deployments for line in deployment.message.splitlines()]
    prefix = f"{errors.__name__}."  # of our errors in a traceback
    _, matched, message = next((line for line in reversed(lines) if prefix in line), "").rpartition(prefix)
    hint = " (jobs.promote --rollback returns to the previous version)" if BrokenArtifact.__name__ in message else ""
    return f"; {message.strip()}{hint}" if matched else ""


def read_settings(path: str | None, models: str) -> Settings:
    """The settings in --config, for the live model of ``models``. Raises BadConfig."""
    try:
        values = yaml.safe_load(Path(path).read_text()) if path else {}
    except (OSError, yaml.YAMLError) as error:
        raise BadConfig(f"--config {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise BadConfig(f"--config {path} must hold fields of serve_app.settings.Settings")
    try:
        return Settings(**{**values, "models": models})
    except ValidationError as error:
        raise BadConfig(f"--config {path}: {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    first: Any = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{name}: {first['msg']}"
    known = ", ".join(field for field in Settings.model_fields if field != "models")
    is_deploy_file = name in SERVE_DEPLOY_FIELDS
    hint = " (if this is a file for serve deploy: --config reads what is under its args)" if is_deploy_file else ""
    return f"there is no field {name}{hint}; the fields are {known}"


def check_port(host: str, port: int, flag: str) -> None:
    """Raises BadConfig or InsufficientResources unless a server can listen there."""
    if not 0 < port < 2**16:
        raise BadConfig(f"{flag} is {port}: it must be from 1 to 65535")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just released is free
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InsufficientResources(
                    f"port {port} is in use: stop what uses it, or choose another {flag}"
                ) from None
            raise BadConfig(f"cannot listen on {host}:{port} ({error.strerror}): choose another {flag}") from None


if __name__ == "__main__":
    main()
