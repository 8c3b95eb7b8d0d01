"""The life of a cluster of three hosts, told with its times: ``bash tests/cluster/run.sh``.

A laptop brings the cluster up over ssh with docs/clusters/local.yaml, sends jobs through the ssh tunnel to the
dashboard, stops one and goes on with it, pulls a host's cable while it trains, serves, asks, and takes the cluster
down. Only addresses, key, the install commands and sizes of the file are changed. Runs inside the namespaces of run.sh.
"""

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from detector_core import demo
from detector_core.variants import spec_for
from tests.cluster import exchange
from tests.cluster.hosts import PROJECT, SHARED, Host, Hosts

HEAD, ONE, TWO, LAPTOP = "head", "one", "two", "laptop"
CLUSTER = f"{SHARED}/cluster.yaml"
LIMIT_S = 240
PATIENT_S = 480
DASHBOARD = "http://127.0.0.1:8265"
SERVE_PORT = 8000
# A lost host is noticed in about 10 s; Ray's own settings, made for real networks, take about a minute.
QUICK = "RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=3000 RAY_health_check_failure_threshold=3"
TINY = {
    "model.init": "none",
    "preprocess.image_size": 32,
    "optim.epochs": 14,
    "optim.batch_size": 8,
    "optim.micro_batch": 4,
    "optim.learning_rate": 0.001,
}
EXCLUDE = json.dumps({"excludes": [".venv", ".git", "/docs", "/tests"]})


class Story:
    """A cluster of the hosts, what is said to it from the laptop, and the seconds of each chapter."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts, self.laptop = hosts, hosts[LAPTOP]
        self.seconds: dict[str, float] = {}

    @contextmanager
    def chapter(self, name: str) -> Iterator[None]:
        """Times a step and says how it went."""
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        print(f"ok  {self.seconds[name]:6.1f} s  {name}", file=sys.stderr, flush=True)

    def say(self, line: str, *, fails: bool = False, limit_s: float = LIMIT_S) -> str:
        """Runs a line on the laptop, in the project's folder; what it wrote."""
        command = self.laptop.command(f"cd {PROJECT}; export RAY_UP_enable_autoscaler_v2=0; {line}")
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit_s)
        text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
        if (done.returncode != 0) != fails:
            raise AssertionError(f"{line}\nended with {done.returncode}:\n{text[-6000:]}")
        return text

    def submit(self, *words: object, wait: bool = True, fails: bool = False, name: str = "") -> str:
        """``ray job submit -- python -m ...`` from the laptop; its log."""
        entry = shlex.join(["python", "-m", *map(str, words)])
        flags = f"--submission-id {name} " * bool(name) + "--no-wait " * (not wait)
        return self.say(
            f"ray job submit --address {DASHBOARD} --working-dir . --runtime-env-json '{EXCLUDE}' {flags}-- {entry}",
            fails=fails,
        )

    def log(self, name: str) -> str:
        """The log of a job so far."""
        return self.say(f"ray job logs --address {DASHBOARD} {name}")

    def get(self, url: str, *flags: str) -> int:
        """The HTTP status of a page as the laptop sees it; 0 without an answer."""
        line = shlex.join(["curl", "-s", "-o", "/dev/null", "-m", "10", "-w", "%{http_code}", *flags, url])
        done = subprocess.run(self.laptop.command(line), capture_output=True, text=True, check=False)
        return int(done.stdout or 0)


def until(holds: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """What ``holds`` returns when it is true at last."""
    deadline = time.monotonic() + limit_s
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s:g} s: {what}")
        time.sleep(0.5)
    return found


def cluster_file(hosts: Hosts) -> dict[str, Any]:
    """docs/clusters/local.yaml for these hosts: one core each, the head none, the environment that is here already."""
    config: dict[str, Any] = yaml.safe_load((PROJECT / "docs/clusters/local.yaml").read_text())
    config["provider"].update(head_ip=hosts[HEAD].address, worker_ips=[hosts[ONE].address, hosts[TWO].address])
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(hosts.key)}
    config["setup_commands"] = [f"ln -sfn {PROJECT}/.venv ~/env", config["setup_commands"][-1]]
    for kind, cores in (("head", 0), ("worker", 1)):
        lines = config[f"{kind}_start_ray_commands"]
        start = f"{QUICK} ray start --num-cpus={cores} --object-store-memory=150000000 "
        config[f"{kind}_start_ray_commands"] = [line.replace("ray start ", start) for line in lines]
    return config


def alive(host: Host) -> bool:
    """Whether a raylet runs on a host."""
    return any("raylet/raylet" in line for line in host.processes())


def epochs(run: Path) -> int:
    """Epochs that a run has finished."""
    table = run / "metrics.csv"
    return max(0, len(table.read_text().splitlines()) - 1) if table.exists() else 0


def tell(hosts: Hosts) -> dict[str, Any]:
    """The story; what it found."""
    story, shared = Story(hosts), hosts.root / "shared"
    (shared / "cluster.yaml").write_text(yaml.safe_dump(cluster_file(hosts)))
    (shared / "spec.json").write_text(json.dumps(spec_for("timm:test_resnet-cutout", TINY).to_dict()))
    demo.generate(shared / "pictures", seed=0, size=32, counts={"train": 60, "valid": 12, "test": 12})
    found: dict[str, Any] = {}
    run = shared / "runs" / "cut"
    flags = ["timm:test_resnet-cutout", "--spec", SHARED / "spec.json", "--data", SHARED / "dataset", "--cpus", 1]
    train = ["jobs.train", *flags, "--storage", SHARED / "runs"]
    cut = [*train, "--name", "cut", "--workers", "1:2", "--checkpoint-every", 5]

    with story.chapter("ray up: head over ssh, the head reaches the workers"):
        story.say("ray get-auth-token --generate > /dev/null && ray up -y " + CLUSTER)
        until(lambda: alive(hosts[ONE]) and alive(hosts[TWO]), "Ray on both workers")
    tunnel = subprocess.Popen(
        story.laptop.command(f"cd {PROJECT}; exec ray dashboard {CLUSTER}"),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with story.chapter("dashboard: through the tunnel with the token, and no other way"):
        until(lambda: story.get(f"{DASHBOARD}/api/version") == 401, "401 without the token")
        token = (hosts[LAPTOP].root / "tmp/home/.ray/auth_token").read_text().strip()
        assert story.get(f"{DASHBOARD}/api/version", "-H", f"Authorization: Bearer {token}") == 200
        assert story.get(f"http://{hosts[HEAD].address}:8265/") == 0, "the dashboard is open to the network"
    with story.chapter("prepare, on the workers"):
        until(lambda: "2.0 CPU" in story.say(f"ray exec {CLUSTER} 'ray status'"), "two cores in the cluster")
        story.submit("jobs.prepare", SHARED / "pictures", "--out", SHARED / "dataset")
    with story.chapter("refused at once: more workers, or GPUs, than there are"):
        said = story.submit(*train, "--name", "gpu", "--gpu", fails=True)
        assert "training with 1 workers needs 1 GPU, and this Ray has 0" in said, said
        said = story.submit(*train, "--name", "many", "--workers", 3, fails=True)
        assert "training with 3 workers needs 3 CPU, and this Ray has 2" in said, said
    with story.chapter("train across hosts, ray job stop: it ends with a checkpoint"):
        story.submit(*cut, wait=False, name="first")
        until(lambda: epochs(run) >= 1, "an epoch")
        story.say(f"ray job stop --address {DASHBOARD} first")
        said = story.log("first")
        places = re.findall(r"2 workers on ([\d., ]+), from", said)
        assert places, said
        assert set(places[0].split(", ")) == {hosts[ONE].address, hosts[TWO].address}, said
        assert "stopped: nothing half-written was left" in said, said
        assert epochs(run) < TINY["optim.epochs"]
        found["workers"] = places[0].split(", ")
    with story.chapter("tune two rates"):
        said = story.submit("jobs.tune", *flags, "--storage", SHARED / "runs", "--name", "rates", "--epochs", 1,
                            "--rates", "1e-3,2e-4")  # fmt: skip
        assert '"failed": 0' in said, said
    with story.chapter("go on, a cable is pulled, the run completes on what is left"):
        before = epochs(run)
        story.submit(*cut, "--resume", wait=False, name="second")
        until(lambda: epochs(run) > before, "another epoch")
        hosts[TWO].link("down")
        pulled = time.monotonic()
        ended = re.compile("SUCCEEDED|FAILED|STOPPED")
        status = f"ray job status --address {DASHBOARD} second"
        last = until(lambda: ended.search(story.say(status)), "the end of the run", PATIENT_S)
        said = story.log("second")
        assert last[0] == "SUCCEEDED", said
        begun = re.findall(r"(\d) workers? on [\d., ]+, from epoch (\d+), step (\d+)", said)
        assert [int(workers) for workers, _, _ in begun] == [2, 1], said
        assert epochs(run) == TINY["optim.epochs"], said
        found |= {"resumed_at": begun[0][1:], "went_on_at": begun[1][1:]}
        found["seconds_from_cut_to_end"] = round(time.monotonic() - pulled, 1)
    with story.chapter("evaluate and promote on one host"):
        story.submit("jobs.evaluate", SHARED / "runs/cut", "--data", SHARED / "dataset")
        story.submit("jobs.promote", SHARED / "runs/cut", "--to", SHARED / "models")
    with story.chapter("serve: the laptop asks the head about a picture"):
        story.submit("serve_app", "--models", SHARED / "models", "--host", "0.0.0.0", "--port", SERVE_PORT,
                     wait=False, name="service")  # fmt: skip
        service = f"http://{hosts[HEAD].address}:{SERVE_PORT}"
        until(lambda: story.get(f"{service}/readyz") == 200, "the service")
        picture = next((shared / "pictures").rglob("*.jpg"))
        there = SHARED / picture.relative_to(shared)
        answer = story.say(f"curl -s --data-binary @{there} -H 'Content-Type: image/jpeg' {service}/v1/detect")
        found["answer"] = json.loads(answer)["results"][0]["verdict"]
        story.say(f"ray job stop --address {DASHBOARD} service")
    with story.chapter("ray down: no process is left on any host"):
        # By its exact name and among the laptop's own processes: the tunnel's, and ssh's shared connections.
        subprocess.run(story.laptop.command("pkill -x ssh"), check=False)
        tunnel.wait(30)
        hosts[TWO].link("up")
        story.say(f"ray down -y {CLUSTER}")
        for name in (ONE, TWO):  # there `ray down` leaves the log monitor behind
            target = f"-i {hosts.key} -o StrictHostKeyChecking=no root@{hosts[name].address}"
            story.say(f"ssh -tt {target} bash --login -i -c \"'ray stop'\"")
        ours = [hosts[name] for name in (HEAD, ONE, TWO)]
        until(lambda: not [line for host in ours for line in host.processes()], "an end of all processes", 120)
    return {"seconds": story.seconds, "total_s": round(sum(story.seconds.values()), 1), **found}


def main() -> None:
    """Tells the story, or measures, with files in the folder that run.sh made; prints a table and one JSON line."""
    folder, *words = sys.argv[1:]
    with Hosts(Path(folder), [LAPTOP, HEAD, ONE, TWO]) as hosts:
        if words == ["scaling"]:
            print(json.dumps(exchange.measure(hosts)))
            return
        try:
            result = tell(hosts)
        except (AssertionError, subprocess.SubprocessError) as error:
            _explain(error, hosts)
            sys.exit(1)
    for name, seconds in result["seconds"].items():
        print(f"{seconds:7.1f} s  {name}")
    print(json.dumps(result))


def _explain(error: Exception, hosts: Hosts) -> None:
    """What a person needs who was not there."""
    print(f"error: {error}", file=sys.stderr)
    for log in sorted((hosts.root / HEAD / "tmp/ray").glob("session_2*/logs/monitor.[eo]*")):
        print(f"-- {log.name}\n{log.read_text()[-1500:]}", file=sys.stderr)
    for host in hosts.hosts.values():
        print(f"-- {host.name}: {[line[:100] for line in host.processes()]}", file=sys.stderr)


if __name__ == "__main__":
    main()
