"""The head node is killed under load, with its state in Redis: ``bash reliability/cluster/run.sh head``.

Two hosts serve serve_app/config.yaml, one replica each, behind their own HAProxy. The head has neither replicas nor
clients, and keeps its state in a Redis on the laptop. Clients on the laptop send images to both hosts without a pause.
Then every process of the head is killed; while it is away a model is promoted; after AWAY_S the same `ray start` brings
it back. No request may be lost, the same replicas must go on, and another deployment must be obeyed.
"""

import http.client
import json
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

import yaml

from detector_core.registry import versions
from reliability.cluster.hosts import PROJECT, SHARED, Host, Hosts
from reliability.cluster.laptop import HEAD, LAPTOP, ONE, TWO, wait_until
from tests.support.http_service import image_bytes
from tests.support.models import save_model

REDIS_PORT, PORT, CLIENTS = 6379, 8000, 4
BEFORE_S, AWAY_S, AFTER_S = 5, 30, 10
WORKERS = (ONE, TWO)
ANSWERED = "200"


def measure(hosts: Hosts) -> dict[str, Any]:
    """Plays the scenario. Raises AssertionError if a promise did not hold.

    Returns:
        ``requests`` and the ``longest_s`` of them, for how long the head was away (``away_s``), and how long after its
        start it obeyed again (``back_s``).
    """
    shared = hosts.root / "shared"
    second, first = (
        versions.promote(save_model(shared / name, seed=seed, run=name), shared / "models", force=True)
        for seed, name in enumerate(("second", "first"))
    )
    password, token = secrets.token_hex(8), secrets.token_hex(32)
    redis = _start_redis(hosts[LAPTOP], password)
    lines = _start_lines(hosts, password, token)
    try:
        for name in (HEAD, *WORKERS):
            _run(hosts[name], lines[name])
        _deploy(hosts, token, min_replicas=2)
        urls = [f"{hosts[name].address}:{PORT}" for name in WORKERS]
        wait_until(lambda: all(_version(hosts, url) == first for url in urls), "the service on both hosts")
        replicas = _replicas(hosts)
        load = subprocess.Popen(
            hosts[LAPTOP].command(f"cd {PROJECT}; python -m reliability.cluster.head {' '.join(urls)}"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(BEFORE_S)
        subprocess.run(hosts[HEAD].command("kill -KILL -1"), check=False)
        killed = time.monotonic()
        wait_until(lambda: not hosts[HEAD].processes(), "the end of every process of the head", 30)
        print("ok  every process of the head was killed", file=sys.stderr, flush=True)
        time.sleep(AWAY_S / 2)
        versions.rollback(shared / "models")
        wait_until(lambda: all(_version(hosts, url) == second for url in urls), "a promotion without a head", 60)
        time.sleep(max(0.0, killed + AWAY_S - time.monotonic()))
        started = time.monotonic()
        _run(hosts[HEAD], lines[HEAD])
        wait_until(lambda: "RUNNING" in _serve(hosts, token, "status"), "serve status on the new head")
        back_s = time.monotonic() - started
        time.sleep(AFTER_S)
        assert _replicas(hosts) == replicas, "the replicas were replaced"
        _deploy(hosts, token, min_replicas=1)
        wait_until(lambda: len(_replicas(hosts)) == 1, "one replica after another deployment")
        time.sleep(AFTER_S)
        sent = json.loads(load.communicate("stop\n", timeout=90)[0].splitlines()[-1])
        assert set(sent["counts"]) == {ANSWERED}, f"not every request was answered: {sent['counts']}"
        requests = {"requests": sent["counts"][ANSWERED], "longest_s": sent["longest_s"]}
        times = {"away_s": round(started - killed, 1), "back_s": round(back_s, 1)}
        return {"folder": str(hosts.root), **requests, **times}
    finally:
        redis.terminate()
        redis.wait(30)


def _start_redis(host: Host, password: str) -> "subprocess.Popen[bytes]":
    command = f"exec redis-server --bind {host.address} --port {REDIS_PORT} --requirepass {password} --save ''"
    redis = subprocess.Popen(host.command(command), stdout=subprocess.DEVNULL)
    ping = f"REDISCLI_AUTH={password} redis-cli -h {host.address} ping"
    wait_until(lambda: subprocess.run(host.command(ping), capture_output=True).stdout == b"PONG\n", "Redis", 30)
    return redis


def _start_lines(hosts: Hosts, password: str, token: str) -> dict[str, str]:
    """Host -> the command that starts its Ray, as docs/kubernetes has it."""
    network = hosts[HEAD].address.rpartition(".")[0]
    common = (
        f'cd {PROJECT}; ulimit -n 65536; eval "$(python serve_app/front.py ~/front)"; '
        f"export RAY_AUTH_TOKEN={token} PYTHONPATH={PROJECT} FORWARDED_ALLOW_IPS=127.0.0.1,{network}.0/24 "
        "RAY_gcs_rpc_server_reconnect_timeout_s=600 RAY_worker_niceness=0; "
    )
    store = f"export RAY_REDIS_ADDRESS={hosts[LAPTOP].address}:{REDIS_PORT} RAY_external_storage_namespace=detector; "
    start = "ray start --object-store-memory=150000000 --disable-usage-stats "
    lines = dict.fromkeys(WORKERS, f"{common}{start} --num-cpus=1 --address={hosts[HEAD].address}:6379")
    head = f"--head --num-cpus=0 --port=6379 --dashboard-host=127.0.0.1 --redis-password={password}"
    return {**lines, HEAD: f"{common}{store}{start} {head}"}


def _deploy(hosts: Hosts, token: str, *, min_replicas: int) -> None:
    """serve_app/config.yaml, with a core for each replica and as many as are asked for."""
    config = yaml.safe_load((PROJECT / "serve_app" / "config.yaml").read_text())
    (application,) = config["applications"]
    application["args"] |= {
        "models": str(SHARED / "models"),
        "poll_s": 1,
        "detector_cpus": 1,
        "detectors": {"min_replicas": min_replicas, "max_replicas": min_replicas},
    }
    application["args"]["http"] |= {"faces": "off", "requests_per_minute": 0}
    (hosts.root / "shared" / "serve.yaml").write_text(yaml.safe_dump(config))
    _serve(hosts, token, f"deploy {SHARED}/serve.yaml")


def _serve(hosts: Hosts, token: str, words: str) -> str:
    """The output of ``serve WORDS`` on the head; empty while it cannot answer."""
    verb, *rest = words.split()
    address = 'export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265; serve {} --address "$RAY_API_SERVER_ADDRESS" {}'
    line = f"export RAY_AUTH_TOKEN={token}; {address.format(verb, ' '.join(rest))}"
    return subprocess.run(hosts[HEAD].command(line), capture_output=True, text=True, timeout=120).stdout


def _run(host: Host, line: str) -> None:
    done = subprocess.run(host.command(line), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240)
    assert done.returncode == 0, f"{host.name}: {done.stdout[-4000:]}"


def _replicas(hosts: Hosts) -> set[tuple[str, str]]:
    """Host and process id of each replica."""
    return {
        (name, pid)
        for name in WORKERS
        for pid in subprocess.run(
            hosts[name].command("pgrep -f '^ray::ServeReplica:detector'"), capture_output=True, text=True
        ).stdout.split()
    }


def _version(hosts: Hosts, address: str) -> str:
    """The version that answers at an address, asked from the laptop; empty if nothing answers."""
    line = f"curl -s -m 5 http://{address}/v1/model"
    done = subprocess.run(hosts[LAPTOP].command(line), capture_output=True, text=True)
    try:
        return str(json.loads(done.stdout)["version"])
    except (ValueError, KeyError):
        return ""


def send(addresses: list[str]) -> dict[str, Any]:
    """Sends images to all addresses in turn until a line arrives on stdin; what became of them.

    Returns:
        ``counts``: status, or the name of the error -> how many; ``longest_s``: the slowest answer.
    """
    counts, seconds, ended, data = Counter[str](), list[float](), threading.Event(), image_bytes()

    def client(number: int) -> None:
        while not ended.is_set():
            started = time.monotonic()
            connection = http.client.HTTPConnection(addresses[number % len(addresses)], timeout=60)
            try:
                connection.request("POST", "/v1/detect", data, {"Content-Type": "image/jpeg"})
                response = connection.getresponse()
                response.read()
                counts[str(response.status)] += 1
            except OSError as error:
                counts[type(error).__name__] += 1
            finally:
                connection.close()
            seconds.append(time.monotonic() - started)
            number += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    sys.stdin.readline()
    ended.set()
    for thread in threads:
        thread.join()
    return {"counts": dict(counts), "longest_s": round(max(seconds), 2)}


if __name__ == "__main__":
    print(json.dumps(send(sys.argv[1:])))
