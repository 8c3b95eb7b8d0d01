"""Run everything once: prepare data, train, evaluate, promote, serve, and ask about a real and a fake image.

  python -m jobs.demo
  python -m jobs.demo --data FOLDER        your own images, e.g. the unpacked Kaggle 140k set

Each step is a command that you can type yourself; it is printed before it runs. Without --data the images are generated
demo data, which shows that the whole chain works and says nothing about faces. With --data a small head is trained on
frozen ImageNet features of your images (lite-frozen), which takes minutes and gives figures that mean something. At
most --sample images per split and class are used. Everything is left in --work: the data set, the run and the promoted
model, which `make serve` serves.

The last line on stdout is one JSON object: run, test_accuracy, auc, answers (file, truth, verdict, p_fake).
"""

import argparse
import contextlib
import ctypes
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from detector_core.data import demo, manifest
from detector_core.errors import DetectorError, InsufficientResources
from detector_core.labels import LABELS
from detector_core.networks.variants import RECIPES
from jobs.common import cli, loopback

WORKERS = 2
DISK_BYTES = 3 * 10**9
READY_S, ANSWER_S, STOP_S = 240, 60, 60
SIZE = 64
COUNTS = {"train": 300, "valid": 80, "test": 80}
EPOCHS = 4
# What is trained on generated data: small images, a few hundred steps (docs/decisions.md).
GENERATED = [
    *("resnet68-cutout", "--image-size", str(SIZE), "--batch-size", "16", "--micro-batch", "8"),
    *("--epochs", str(EPOCHS), "--set", "optim.learning_rate=0.001", "--set", "optim.schedule=cosine"),
]
# What is trained on images of the user.
FACES = "lite-frozen"


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = cli.parser("demo", __doc__)
    parser.add_argument("--data", metavar="FOLDER", help="images in a layout that jobs.prepare reads [generated]")
    parser.add_argument("--work", default=".demo", metavar="FOLDER", help="folder for everything that is made [.demo]")
    parser.add_argument("--sample", type=int, default=1000, metavar="N", help="most images per split and class [1000]")
    epochs = f"{EPOCHS}, with --data {RECIPES[FACES].epochs}"
    parser.add_argument("--epochs", type=int, metavar="E", help=f"passes over the training images [{epochs}]")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same data and model [0]")
    cli.run(job, parser.parse_args(argv))


def job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs the steps in order."""
    started = time.monotonic()
    work = Path(arguments.work)
    work.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(work).free
    if free < DISK_BYTES:
        raise InsufficientResources(
            f"{work.absolute()} has {free / 1e9:.1f} GB free, and the demo needs {DISK_BYTES / 1e9:.0f} GB"
        )
    runs, models, name = work / "runs", work / "models", "demo"
    for folder in (runs, models):  # of an earlier demo
        shutil.rmtree(folder, ignore_errors=True)
    source = Path(arguments.data) if arguments.data else _generate(work / "data", arguments.seed)
    recipe = [*([FACES] if arguments.data else GENERATED), "--seed", arguments.seed]
    if arguments.epochs:
        recipe += ["--epochs", arguments.epochs]
    dataset = work / "dataset"
    _step("prepare", source, "--out", dataset, "--sample", arguments.sample)
    _step("train", *recipe, "--data", dataset, "--storage", runs, "--name", name, "--workers", WORKERS)
    report = _step("evaluate", runs / name, "--data", dataset)
    _step("promote", runs / name, "--to", models, "--data", dataset)
    answers = _query_service(models, manifest.load(str(dataset)))
    data_name = "your images" if arguments.data else "generated demo data"
    for answer in answers:
        cli.say(f"a {answer['truth']} image of {data_name}: {answer['verdict']} (p_fake {answer['p_fake']:.3f})")
    cli.say(f"the demo took {time.monotonic() - started:.0f} s; serve this model with: make serve MODELS={models}")
    if not arguments.data:
        cli.say("serve a detector for real faces, the starter model, with: make serve MODELS=models")
    return {
        "run": str((runs / name).absolute()),
        "test_accuracy": report["accuracy"],
        "auc": report["auc"],
        "answers": answers,
    }


def _generate(folder: Path, seed: int) -> Path:
    cli.say(f"\n== generate demo data in {folder}")
    with tqdm(total=2 * sum(COUNTS.values()), unit="image", desc="generate") as bar:

        def show(done: int, _: int) -> None:
            bar.update(done - bar.n)

        return demo.generate(folder, seed=seed, size=SIZE, counts=COUNTS, progress=show)


def _step(verb: str, *arguments: object) -> dict[str, Any]:
    """Runs ``python -m jobs.VERB`` and returns the JSON object in its last line."""
    command = ["-m", f"jobs.{verb}", *(str(argument) for argument in arguments)]
    cli.say(f"\n== python {shlex.join(command)}")
    with _child(command, stdout=subprocess.PIPE) as process:
        output, _ = process.communicate()
        if process.returncode:
            raise DetectorError(f"the step {verb!r} failed: see the messages above")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def _query_service(models: Path, data: manifest.Manifest) -> list[dict[str, Any]]:
    """Serves the live model and sends it the first real and the first fake test image over HTTP."""
    port = loopback.free_port()
    command = ["-m", "jobs.serve", "--models", str(models), "--port", str(port)]
    cli.say(f"\n== python {shlex.join(command)}")
    rows = data.split("test")
    with _child(command, stdout=subprocess.DEVNULL) as server:
        loopback.wait_until_ready(server, f"http://127.0.0.1:{port}/readyz", READY_S)
        answers = []
        for truth in LABELS:
            path = Path(data.root) / rows[rows["label"] == truth]["path"].iloc[0]
            # faces=off because the images of a data set are aligned portraits already.
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/detect?faces=off",
                data=path.read_bytes(),
                headers={"Content-Type": "image/jpeg"},
            )
            result = json.loads(loopback.send(request, ANSWER_S))["results"][0]
            answers.append(
                {"file": path.name, "truth": truth, "verdict": result["verdict"], "p_fake": result["p_fake"]}
            )
    return answers


@contextlib.contextmanager
def _child(command: list[str], stdout: int) -> "Iterator[subprocess.Popen[bytes]]":
    """A Python process that is ended with the ``with`` block, and with this process, however that ends."""
    process = subprocess.Popen([sys.executable, *command], stdout=stdout, preexec_fn=_die_with_parent)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _die_with_parent() -> None:
    """Makes Linux send SIGTERM to this process when its parent dies."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


if __name__ == "__main__":
    main()
