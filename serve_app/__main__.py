"""Serve the live model of MODELS: the web page, the HTTP interface and the Ray dashboard.

  python -m serve_app --models models
  python -m serve_app --models models --port 8080 --host 0.0.0.0
  python -m serve_app --models models --config serve.yaml

Prints the addresses once the model answers, and serves until Ctrl-C or SIGTERM. A model that is promoted meanwhile is
taken over within seconds. Starts a private Ray on this machine, or joins the one at RAY_ADDRESS. The address 127.0.0.1
is reached from this machine only; --host 0.0.0.0 opens the service to the network. --config is a YAML or JSON file with
fields of serve_app.settings.Settings (keys, limits, feedback, replicas, ...), such as

  http: {api_keys_file: /etc/detector/keys, rate_per_minute: 120}

For a cluster see serve_app/config.yaml.
"""

import argparse
import contextlib
import errno
import os
import secrets
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

import yaml
from pydantic import ValidationError

from detector_core.errors import BadConfig, DetectorError, NoRoom
from detector_core.registry import versions
from detector_core.registry.predictor import describe
from serve_app.settings import Settings

DEPLOY = ("proxy_location", "http_options", "logging_config", "applications")
"""Fields at the top of a file of ``serve deploy``."""


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m serve_app", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", required=True, metavar="MODELS", help="a folder that jobs.promote fills")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on [%(default)s]")
    parser.add_argument("--port", type=int, default=8000, help="[%(default)s]")
    parser.add_argument("--dashboard-port", type=int, metavar="PORT", help="of the Ray dashboard [the first free one]")
    parser.add_argument("--config", metavar="FILE", help="settings of the service as YAML or JSON")
    arguments = parser.parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        run(arguments)
    except DetectorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    sys.exit(0)


def run(arguments: argparse.Namespace) -> None:
    """Checks, serves, and waits for a signal (KeyboardInterrupt)."""
    model = describe(versions.live(arguments.models))
    settings = read_settings(arguments.config, arguments.models)
    check_port(arguments.host, arguments.port, "--port")
    if arguments.dashboard_port is not None:
        check_port("127.0.0.1", arguments.dashboard_port, "--dashboard-port")
    print(f"starting Ray and the model {model.version} ...", file=sys.stderr, flush=True)
    token = close_private_ray()
    from serve_app.app import serving  # Ray reads its settings from the environment when it is imported

    with serving(
        settings, host=arguments.host, port=arguments.port, dashboard_port=arguments.dashboard_port
    ) as dashboard:
        base = f"http://{'127.0.0.1' if arguments.host == '0.0.0.0' else arguments.host}:{arguments.port}"
        print(f"page       {base}/\nAPI        {base}/docs")
        if dashboard:
            print(f"dashboard  {dashboard}" + (f"   it asks for this token: {token}" if token else ""))
        print("stop with Ctrl-C", flush=True)
        try:
            told = now = model.version
            while True:
                time.sleep(settings.follow_s)
                with contextlib.suppress(DetectorError, OSError):  # the replicas say so in their log
                    now = next(iter(versions.history(arguments.models)), told)
                if now != told:
                    print(
                        f"{now} is live now: the replicas take it over, /v1/model says when",
                        file=sys.stderr,
                        flush=True,
                    )
                    told = now
        finally:
            print("stopping ...", file=sys.stderr, flush=True)


def read_settings(path: str | None, models: str) -> Settings:
    """The settings of --config, on the live model of ``models``. Raises BadConfig."""
    try:
        values = yaml.safe_load(Path(path).read_text()) if path else {}
    except (OSError, yaml.YAMLError) as error:
        raise BadConfig(f"--config {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise BadConfig(f"--config {path}: fields of serve_app.settings.Settings are expected")
    try:
        return Settings(**{**values, "models": models})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(name for name in Settings.model_fields if name != "models")
            hint = " (a file of serve deploy? --config reads what stands under its args)" if field in DEPLOY else ""
            raise BadConfig(f"--config {path}: there is no field {field}{hint}; at the top are {known}") from None
        raise BadConfig(f"--config {path}: {field}: {first['msg']}") from None


def check_port(host: str, port: int, flag: str) -> None:
    """Raises BadConfig or NoRoom unless a server could listen there."""
    if not 0 < port < 2**16:
        raise BadConfig(f"{flag} is {port}: it must be from 1 to 65535")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just left is free
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise NoRoom(f"port {port} is in use: stop what listens there, or choose another {flag}") from None
            raise BadConfig(f"cannot listen on {host}:{port} ({error.strerror}): choose another {flag}") from None


def close_private_ray() -> str | None:
    """Turns on token authentication for the Ray that is about to start, and returns the token; None to join another.

    Ray listens on every address of a machine, whatever it is told. The token exists only in the environment of this
    process and its children.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for who in ("REPLICA", "HANDLE"):  # how soon replicas tell of their load; Ray's default is 10 s
        os.environ.setdefault(f"RAY_SERVE_{who}_AUTOSCALING_METRIC_PUSH_INTERVAL_S", "1")
    if os.environ.get("RAY_ADDRESS") or "RAY_AUTH_MODE" in os.environ:
        return None
    os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(16)
    return os.environ["RAY_AUTH_TOKEN"]


def _stop(*_: object) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # stopping takes seconds and must not be cut short
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
