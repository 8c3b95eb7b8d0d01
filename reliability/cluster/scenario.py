"""The life of a cluster of three hosts, step by step and with times: ``bash reliability/cluster/run.sh``.

A laptop brings the cluster up over ssh with docs/clusters/local.yaml, submits jobs through the ssh tunnel to the
dashboard, stops one and resumes it, pulls a host's cable during a training run, puts it back, serves a model, sends it
an image, and takes the cluster down. Of the cluster file only addresses, key, install commands and sizes are changed.
Runs inside the namespaces that run.sh makes.
"""

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from detector_core.data import demo
from detector_core.networks.variants import spec_for
from reliability.cluster import head, scaling
from reliability.cluster.hosts import PROJECT, SHARED, Hosts
from reliability.cluster.laptop import DASHBOARD, ENDED, HEAD, LAPTOP, ONE, TWO, Laptop, raylet_pid, wait_until

CLUSTER = f"{SHARED}/cluster.yaml"
SERVE_PORT, METADATA_PORT = 8000, 8099
# With these a lost host is noticed in about 10 s. Ray's own settings are made for real networks and take a minute.
# Without the last one, anything else that runs on this machine comes before Ray's workers.
QUICK = (
    "RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=3000 RAY_health_check_failure_threshold=3 "
    "AUTOSCALER_UPDATE_INTERVAL_S=1 RAY_worker_niceness=0"
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
ELASTIC = [*TRAIN, "--name", RUN.name, "--workers", "1:2", "--checkpoint-every", 5]
EVALUATE = ["python", "-m", "jobs.evaluate", RUN, "--data", DATA]
PROMOTE = ["python", "-m", "jobs.promote", RUN, "--to", MODELS, "--precision", "fp32"]
SERVE = ["python", "-m", "jobs.serve", "--models", MODELS, "--host", "0.0.0.0", "--port", SERVE_PORT]
Step = Callable[[Laptop], None]


def bring_up(laptop: Laptop) -> None:
    laptop.run("ray get-auth-token --generate > /dev/null && ray up -y " + CLUSTER)
    wait_until(lambda: raylet_pid(laptop.hosts[ONE]) and raylet_pid(laptop.hosts[TWO]), "Ray on both workers")


def open_tunnel(laptop: Laptop) -> None:
    subprocess.Popen(
        laptop.host.command(f"cd {PROJECT}; exec ray dashboard {CLUSTER}"),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(lambda: laptop.get(f"{DASHBOARD}/api/version") == 401, "status 401 without the token")
    assert laptop.get(f"{DASHBOARD}/api/version", "-H", laptop.auth_header()) == 200
    head = laptop.hosts[HEAD].address
    assert laptop.get(f"http://{head}:8265/") == 0, "the dashboard is open to the network"
    wait_for_two_cores(laptop)


def wait_for_two_cores(laptop: Laptop) -> None:
    wait_until(lambda: "2.0 CPU" in laptop.run(f"ray exec {CLUSTER} 'ray status'"), "two cores in the cluster")


def prepare(laptop: Laptop) -> None:
    laptop.submit(*PREPARE)


def reject_large_jobs(laptop: Laptop) -> None:
    log = laptop.submit(*TRAIN, "--name", "gpu", "--gpu", fails=True)
    assert "training with 1 workers needs 1 GPU, and this Ray cluster has 0" in log, log
    log = laptop.submit(*TRAIN, "--name", "many", "--workers", 3, fails=True)
    assert "training with 3 workers needs 3 CPU, and this Ray cluster has 2" in log, log


def train_and_stop(laptop: Laptop) -> None:
    laptop.submit(*ELASTIC, wait=False, name="first")
    wait_until(lambda: epochs(laptop) >= 1, "an epoch")
    laptop.stop("first")
    log = laptop.log("first")
    check_both_hosts(laptop, log)
    assert "stopped; run the same command" in log, log
    assert epochs(laptop) < TINY["optim.epochs"]


def tune(laptop: Laptop) -> None:
    search = ["--name", "rates", "--epochs", 1, "--learning-rates", "1e-3,2e-4"]
    log = laptop.submit("python", "-m", "jobs.tune", *FLAGS, *search)
    assert '"failed": 0' in log, log


def cut_off_a_host(laptop: Laptop) -> None:
    before = epochs(laptop)
    laptop.submit(*ELASTIC, "--resume", wait=False, name="second")
    wait_until(lambda: epochs(laptop) > before, "another epoch")
    laptop.hosts[TWO].set_link("down")
    cut = time.monotonic()
    for event, words in (("noticed", "marked dead"), ("went_on", "1 worker on")):
        wait_until(lambda words=words: words in laptop.log("second"), words)
        laptop.results[f"seconds_until_{event}"] = round(time.monotonic() - cut, 1)
    status = wait_until(lambda: ENDED & {laptop.status("second")}, "the end of the run")
    laptop.results["seconds_until_end"] = round(time.monotonic() - cut, 1)
    log = laptop.log("second")
    assert status == {"SUCCEEDED"}, log
    starts = re.findall(r"(\d) workers? on [\d., ]+, from epoch (\d+), step (\d+)", log)
    assert [int(workers) for workers, _, _ in starts] == [2, 1], log
    assert epochs(laptop) == TINY["optim.epochs"], log
    resumed, went_on = ([int(epoch), int(step)] for _, epoch, step in starts)
    laptop.results |= {"resumed_at": resumed, "went_on_at": went_on}


def take_a_host_back(laptop: Laptop) -> None:
    """The host hears it from a metadata service, as a spot instance does; the run has no retries for a failure."""
    two, name = laptop.hosts[TWO], "spot"
    laptop.submit(*TRAIN, "--name", RUN.name, "--workers", "1:2", "--retries", 0, "--epochs", 60, wait=False, name=name)
    wait_until(lambda: epochs(laptop) >= 1, "an epoch")
    subprocess.Popen(two.command(f"cd {PROJECT}; exec python -m reliability.cluster.metadata {METADATA_PORT}"))
    notice = f"METADATA=http://127.0.0.1:{METADATA_PORT} NOTICE_S=20"
    subprocess.Popen(two.command(f"{notice} bash {PROJECT}/docs/clusters/spot.sh"))
    noticed = time.monotonic()
    written = wait_until(
        lambda: re.search(r"wrote a checkpoint at epoch (\d+), step (\d+)", laptop.log(name)), "notice"
    )
    laptop.results["seconds_until_checkpoint"] = round(time.monotonic() - noticed, 1)
    wait_until(lambda: "1 worker on" in laptop.log(name), "the run without the host")
    two.power_off()
    status = wait_until(lambda: ENDED & {laptop.status(name)}, "the end of the run")
    log = laptop.log(name)
    assert status == {"SUCCEEDED"}, log
    starts = re.findall(r"(\d) workers? on [\d., ]+, from epoch (\d+), step (\d+)", log)
    assert [int(workers) for workers, _, _ in starts] == [2, 1], log
    checkpoint, resumed = ([int(number) for number in found] for found in (written.groups(), starts[1][1:]))
    assert resumed >= [checkpoint[0], checkpoint[1] + 1], log
    laptop.results |= {"checkpoint_at": checkpoint, "resumed_at": resumed}


def put_the_cable_back(laptop: Laptop) -> None:
    old = {"", raylet_pid(laptop.hosts[TWO])}  # the host that was cut off still believes it is part of the cluster
    laptop.hosts[TWO].set_link("up")
    wait_until(lambda: raylet_pid(laptop.hosts[TWO]) not in old, "a new raylet on the host that was cut off")
    wait_for_two_cores(laptop)


def evaluate_and_promote(laptop: Laptop) -> None:
    laptop.submit(*EVALUATE)
    laptop.submit(*PROMOTE)


def run_all_jobs(laptop: Laptop) -> None:
    train = [*TRAIN, "--name", RUN.name, "--workers", 2, "--epochs", 1]
    log = laptop.submit(
        "sh", "-c", " && ".join(shlex.join(map(str, job)) for job in (PREPARE, train, EVALUATE, PROMOTE))
    )
    check_both_hosts(laptop, log)


def serve(laptop: Laptop) -> None:
    laptop.submit(*SERVE, wait=False, name="service")
    service = f"http://{laptop.hosts[HEAD].address}:{SERVE_PORT}"

    def is_ready() -> bool:
        assert laptop.status("service") not in ENDED, laptop.log("service")
        return laptop.get(f"{service}/readyz") == 200

    wait_until(is_ready, "the service")
    assert any("/haproxy -db " in line for line in laptop.hosts[HEAD].processes())
    image = SHARED / next((laptop.shared / "images").rglob("*.jpg")).relative_to(laptop.shared)
    request = f"curl -sS -m 60 --data-binary @{image} -H 'Content-Type: image/jpeg' '{service}/v1/detect?faces=off'"
    laptop.results["verdict"] = json.loads(laptop.run(request))["results"][0]["verdict"]
    laptop.stop("service")


def take_down(laptop: Laptop) -> None:
    # By exact name among the laptop's own processes: the tunnel and ssh's shared connections.
    subprocess.run(laptop.host.command("pkill -x ssh"), check=False)
    laptop.run(f"ray down -y {CLUSTER}")
    for name in (ONE, TWO):  # `ray down` leaves the log monitor running there
        target = f"-i {laptop.hosts.key} -o StrictHostKeyChecking=no root@{laptop.hosts[name].address}"
        laptop.run(f"ssh -tt {target} bash -ic \"'ray stop'\"")
    hosts = [laptop.hosts[name] for name in (HEAD, ONE, TWO)]
    wait_until(lambda: not any(host.processes() for host in hosts), "the end of all processes")


WHOLE: dict[str, Step] = {
    "ray up: the laptop reaches the head over ssh, the head reaches the workers": bring_up,
    "dashboard: reachable only through the tunnel and with the token": open_tunnel,
    "prepare, on the workers": prepare,
    "jobs that need more workers or GPUs than there are: rejected at once": reject_large_jobs,
    "train across hosts, ray job stop: it ends with a checkpoint": train_and_stop,
    "tune two learning rates": tune,
    "resume, a cable is pulled: the run completes on the remaining host": cut_off_a_host,
    "the cable is put back: the host joins again by itself": put_the_cable_back,
    "evaluate and promote": evaluate_and_promote,
    "serve: the laptop sends the head an image": serve,
    "ray down: no process is left on any host": take_down,
}
SPOT: dict[str, Step] = {
    "ray up: the laptop reaches the head over ssh, the head reaches the workers": bring_up,
    "dashboard: reachable only through the tunnel and with the token": open_tunnel,
    "prepare, on the workers": prepare,
    "a host is taken back with notice: a checkpoint at once, and no failure": take_a_host_back,
}
SHORT: dict[str, Step] = {
    "ray up: the laptop reaches the head over ssh, the head reaches the workers": bring_up,
    "dashboard: reachable only through the tunnel and with the token": open_tunnel,
    "one job: prepare, train across hosts, evaluate, promote": run_all_jobs,
    "serve: the laptop sends the head an image": serve,
    "ray down: no process is left on any host": take_down,
}


def cluster_file(hosts: Hosts) -> dict[str, Any]:
    """docs/clusters/local.yaml for these hosts: one core per worker, none on the head, this checkout's environment."""
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
    """The number of epochs that the run has finished."""
    table = laptop.shared / RUN.relative_to(SHARED) / "metrics.csv"
    return max(0, len(table.read_text().splitlines()) - 1) if table.exists() else 0


def check_both_hosts(laptop: Laptop, log: str) -> None:
    """Checks in the log of a training run that its workers ran on both hosts."""
    addresses = re.findall(r"2 workers on ([\d., ]+), from", log)
    assert addresses, log
    laptop.results["workers"] = addresses[0].split(", ")
    assert set(laptop.results["workers"]) == {laptop.hosts[ONE].address, laptop.hosts[TWO].address}, log


def play(hosts: Hosts, steps: dict[str, Step]) -> dict[str, Any]:
    """Plays the scenario; its times and results."""
    laptop = Laptop(hosts)
    (laptop.shared / "cluster.yaml").write_text(yaml.safe_dump(cluster_file(hosts)))
    (laptop.shared / "spec.json").write_text(json.dumps(spec_for("timm:test_resnet-cutout", TINY).to_dict()))
    demo.generate(laptop.shared / "images", seed=0, size=32, counts={"train": 60, "valid": 12, "test": 12})
    for name, step in steps.items():
        with laptop.step(name):
            step(laptop)
    total = round(sum(laptop.seconds.values()), 1)
    return {"folder": str(hosts.root), "seconds": laptop.seconds, "total_s": total, **laptop.results}


def main() -> None:
    """Plays what the words ask for in the folder that run.sh made; prints a table and one JSON line."""
    folder, *words = sys.argv[1:]
    with Hosts(Path(folder), [LAPTOP, HEAD, ONE, TWO]) as hosts:
        if words == ["scaling"]:
            print(json.dumps(scaling.measure(hosts)))
            return
        try:
            if words == ["head"]:
                print(json.dumps(head.measure(hosts)))
                return
            result = play(hosts, {"short": SHORT, "spot": SPOT}[words[0]] if words else WHOLE)
        except (AssertionError, subprocess.SubprocessError) as error:
            _print_diagnosis(error, hosts)
            sys.exit(1)
    for name, seconds in result["seconds"].items():
        print(f"{seconds:7.1f} s  {name}")
    print(json.dumps(result))


def _print_diagnosis(error: Exception, hosts: Hosts) -> None:
    """Prints the error, the autoscaler's logs and the processes of every host."""
    print(f"error: {error}", file=sys.stderr)
    for log in sorted((hosts.root / HEAD / "tmp/ray").glob("session_2*/logs/monitor.[eo]*")):
        print(f"-- {log.name}\n{log.read_text()[-1500:]}", file=sys.stderr)
    for host in hosts.hosts.values():
        print(f"-- {host.name}: {[line[:100] for line in host.processes()]}", file=sys.stderr)


if __name__ == "__main__":
    main()
