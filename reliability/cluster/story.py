"""The life of a cluster of three hosts, told with its times: ``bash reliability/cluster/run.sh``.

A laptop brings the cluster up over ssh with docs/clusters/local.yaml, sends jobs through the ssh tunnel to the
dashboard, stops one and goes on with it, pulls a host's cable while it trains, puts it back, serves, asks, and takes
the cluster down. Only addresses, key, the install commands and sizes of the file are changed. Runs inside the
namespaces of run.sh.
"""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from detector_core.data import demo
from detector_core.networks.variants import spec_for
from reliability.cluster import exchange
from reliability.cluster.hosts import PROJECT, SHARED, Hosts
from reliability.cluster.laptop import DASHBOARD, ENDED, HEAD, LAPTOP, ONE, TWO, Laptop, raylet, until

CLUSTER = f"{SHARED}/cluster.yaml"
SERVE_PORT = 8000
# A lost host is noticed in about 10 s; Ray's own settings, made for real networks, take about a minute.
QUICK = (
    "RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=3000 RAY_health_check_failure_threshold=3 "
    "AUTOSCALER_UPDATE_INTERVAL_S=1"
)
TINY = {
    "model.init": "none",
    "preprocess.image_size": 32,
    "optim.epochs": 14,
    "optim.batch_size": 8,
    "optim.micro_batch": 4,
    "optim.learning_rate": 0.001,
}
DATA, RUNS, MODELS = SHARED / "dataset", SHARED / "runs", SHARED / "models"
RUN = RUNS / "cut"
FLAGS = ["timm:test_resnet-cutout", "--spec", SHARED / "spec.json", "--data", DATA, "--storage", RUNS, "--cpus", 1]
PREPARE = ["python", "-m", "jobs.prepare", SHARED / "images", "--out", DATA]
TRAIN = ["python", "-m", "jobs.train", *FLAGS]
CUT = [*TRAIN, "--name", RUN.name, "--workers", "1:2", "--checkpoint-every", 5]
EVALUATE = ["python", "-m", "jobs.evaluate", RUN, "--data", DATA]
PROMOTE = ["python", "-m", "jobs.promote", RUN, "--to", MODELS, "--precision", "fp32"]
SERVE = ["python", "-m", "serve_app", "--models", MODELS, "--host", "0.0.0.0", "--port", SERVE_PORT]


def bring_up(laptop: Laptop) -> None:
    laptop.say("ray get-auth-token --generate > /dev/null && ray up -y " + CLUSTER)
    until(lambda: raylet(laptop.hosts[ONE]) and raylet(laptop.hosts[TWO]), "Ray on both workers")


def open_tunnel(laptop: Laptop) -> None:
    subprocess.Popen(
        laptop.host.command(f"cd {PROJECT}; exec ray dashboard {CLUSTER}"),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: laptop.get(f"{DASHBOARD}/api/version") == 401, "401 without the token")
    assert laptop.get(f"{DASHBOARD}/api/version", "-H", laptop.token()) == 200
    head = laptop.hosts[HEAD].address
    assert laptop.get(f"http://{head}:8265/") == 0, "the dashboard is open to the network"
    until(lambda: "2.0 CPU" in laptop.say(f"ray exec {CLUSTER} 'ray status'"), "two cores in the cluster")


def prepare(laptop: Laptop) -> None:
    laptop.submit(*PREPARE)


def be_refused(laptop: Laptop) -> None:
    said = laptop.submit(*TRAIN, "--name", "gpu", "--gpu", fails=True)
    assert "training with 1 workers needs 1 GPU, and this Ray has 0" in said, said
    said = laptop.submit(*TRAIN, "--name", "many", "--workers", 3, fails=True)
    assert "training with 3 workers needs 3 CPU, and this Ray has 2" in said, said


def train_and_stop(laptop: Laptop) -> None:
    laptop.submit(*CUT, wait=False, name="first")
    until(lambda: epochs(laptop) >= 1, "an epoch")
    laptop.stop("first")
    said = laptop.log("first")
    on_both_hosts(laptop, said)
    assert "stopped: nothing half-written was left" in said, said
    assert epochs(laptop) < TINY["optim.epochs"]


def tune(laptop: Laptop) -> None:
    search = ["--name", "rates", "--epochs", 1, "--rates", "1e-3,2e-4"]
    said = laptop.submit("python", "-m", "jobs.tune", *FLAGS, *search)
    assert '"failed": 0' in said, said


def lose_a_host(laptop: Laptop) -> None:
    before = epochs(laptop)
    laptop.submit(*CUT, "--resume", wait=False, name="second")
    until(lambda: epochs(laptop) > before, "another epoch")
    laptop.hosts[TWO].link("down")
    pulled = time.monotonic()
    for what, words in (("noticed", "marked dead"), ("went_on", "1 worker on")):
        until(lambda words=words: words in laptop.log("second"), words)
        laptop.found[f"seconds_until_{what}"] = round(time.monotonic() - pulled, 1)
    last = until(lambda: ENDED & {laptop.status("second")}, "the end of the run")
    laptop.found["seconds_until_end"] = round(time.monotonic() - pulled, 1)
    said = laptop.log("second")
    assert last == {"SUCCEEDED"}, said
    begun = re.findall(r"(\d) workers? on [\d., ]+, from epoch (\d+), step (\d+)", said)
    assert [int(workers) for workers, _, _ in begun] == [2, 1], said
    assert epochs(laptop) == TINY["optim.epochs"], said
    resumed, went_on = ([int(number) for number in place[1:]] for place in begun)
    laptop.found |= {"resumed_at": resumed, "went_on_at": went_on}


def put_the_cable_back(laptop: Laptop) -> None:
    without = {"", raylet(laptop.hosts[TWO])}  # cut off, it still believes that it belongs to the cluster
    laptop.hosts[TWO].link("up")
    until(lambda: raylet(laptop.hosts[TWO]) not in without, "a new Ray on the host that was cut off")
    until(lambda: "2.0 CPU" in laptop.say(f"ray exec {CLUSTER} 'ray status'"), "two cores in the cluster")


def judge_and_promote(laptop: Laptop) -> None:
    laptop.submit(*EVALUATE)
    laptop.submit(*PROMOTE)


def do_all_jobs(laptop: Laptop) -> None:
    train = [*TRAIN, "--name", RUN.name, "--workers", 2, "--epochs", 1]
    said = laptop.submit(
        "sh", "-c", " && ".join(shlex.join(map(str, job)) for job in (PREPARE, train, EVALUATE, PROMOTE))
    )
    on_both_hosts(laptop, said)


def serve(laptop: Laptop) -> None:
    laptop.submit(*SERVE, wait=False, name="service")
    service = f"http://{laptop.hosts[HEAD].address}:{SERVE_PORT}"

    def answers() -> bool:
        assert laptop.status("service") not in ENDED, laptop.log("service")
        return laptop.get(f"{service}/readyz") == 200

    until(answers, "the service")
    image = SHARED / next((laptop.shared / "images").rglob("*.jpg")).relative_to(laptop.shared)
    ask = f"curl -sS -m 60 --data-binary @{image} -H 'Content-Type: image/jpeg' '{service}/v1/detect?faces=off'"
    laptop.found["answer"] = json.loads(laptop.say(ask))["results"][0]["verdict"]
    laptop.stop("service")


def take_down(laptop: Laptop) -> None:
    # By its exact name and among the laptop's own processes: the tunnel's, and ssh's shared connections.
    subprocess.run(laptop.host.command("pkill -x ssh"), check=False)
    laptop.say(f"ray down -y {CLUSTER}")
    for name in (ONE, TWO):  # there `ray down` leaves the log monitor behind
        target = f"-i {laptop.hosts.key} -o StrictHostKeyChecking=no root@{laptop.hosts[name].address}"
        laptop.say(f"ssh -tt {target} bash -ic \"'ray stop'\"")
    left = [laptop.hosts[name] for name in (HEAD, ONE, TWO)]
    until(lambda: not [line for host in left for line in host.processes()], "an end of all processes")


WHOLE = {
    "ray up: head over ssh, the head reaches the workers": bring_up,
    "dashboard: through the tunnel with the token, and no other way": open_tunnel,
    "prepare, on the workers": prepare,
    "refused at once: more workers, or GPUs, than there are": be_refused,
    "train across hosts, ray job stop: it ends with a checkpoint": train_and_stop,
    "tune two rates": tune,
    "go on, a cable is pulled, the run completes on what is left": lose_a_host,
    "the cable is put back, the host joins again by itself": put_the_cable_back,
    "evaluate and promote": judge_and_promote,
    "serve: the laptop asks the head about an image": serve,
    "ray down: no process is left on any host": take_down,
}
SHORT = {
    "ray up: head over ssh, the head reaches the workers": bring_up,
    "dashboard: through the tunnel with the token, and no other way": open_tunnel,
    "one job: prepare, train across hosts, evaluate, promote": do_all_jobs,
    "serve: the laptop asks the head about an image": serve,
    "ray down: no process is left on any host": take_down,
}


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


def epochs(laptop: Laptop) -> int:
    """Epochs that the run has finished."""
    table = laptop.shared / RUN.relative_to(SHARED) / "metrics.csv"
    return max(0, len(table.read_text().splitlines()) - 1) if table.exists() else 0


def on_both_hosts(laptop: Laptop, log: str) -> None:
    """The log of a training says that its workers sat on both hosts."""
    places = re.findall(r"2 workers on ([\d., ]+), from", log)
    assert places, log
    laptop.found["workers"] = places[0].split(", ")
    assert set(laptop.found["workers"]) == {laptop.hosts[ONE].address, laptop.hosts[TWO].address}, log


def tell(hosts: Hosts, chapters: dict[str, Any]) -> dict[str, Any]:
    """The story; its times and what it found."""
    laptop = Laptop(hosts)
    (laptop.shared / "cluster.yaml").write_text(yaml.safe_dump(cluster_file(hosts)))
    (laptop.shared / "spec.json").write_text(json.dumps(spec_for("timm:test_resnet-cutout", TINY).to_dict()))
    demo.generate(laptop.shared / "images", seed=0, size=32, counts={"train": 60, "valid": 12, "test": 12})
    for name, happens in chapters.items():
        with laptop.chapter(name):
            happens(laptop)
    total = round(sum(laptop.seconds.values()), 1)
    return {"folder": str(hosts.root), "seconds": laptop.seconds, "total_s": total, **laptop.found}


def main() -> None:
    """Tells the story, or measures, with files in the folder that run.sh made; prints a table and one JSON line."""
    folder, *words = sys.argv[1:]
    with Hosts(Path(folder), [LAPTOP, HEAD, ONE, TWO]) as hosts:
        if words == ["scaling"]:
            print(json.dumps(exchange.measure(hosts)))
            return
        try:
            result = tell(hosts, SHORT if words == ["short"] else WHOLE)
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
