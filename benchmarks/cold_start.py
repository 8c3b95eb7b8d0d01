"""One cold verdict about one file: ``python -m jobs.predict FILE``, and what the peers' scripts for one image cost.

  python -m benchmarks.cold_start --image FILE --rounds 5

CNNDetection and DeepfakeBench have a script each that scores one image. Their weights cannot be shipped here, so each
peer is a stand-in that does the work of its script with the public libraries that it uses: the same imports, a network
of the same kind with random weights that is read from a file, one forward pass over the image. No code of theirs is in
it. What the stand-ins leave out makes them faster than the scripts: DeepfakeBench's looks for the face with dlib and
imports all of its detectors, CNNDetection's never looks for a face.

  resnet50   as CNNDetection: torch and torchvision, ResNet-50 over the whole image
  xception   as DeepfakeBench: torch, torchvision and OpenCV, Xception over 256 x 256 pixels

Every run is a process of its own, in turns, after one uncounted round. The last line on stdout is one JSON object: for
each command the median seconds and cpu_s, the CPU time with all its child processes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import describe

EXAMPLE = Path(__file__).parents[1] / "serve_app" / "static" / "example.jpg"
PEERS = ("resnet50", "xception")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, default=EXAMPLE, metavar="FILE", help="the image [that of the page]")
    parser.add_argument("--rounds", type=int, default=5, metavar="R", help="number of rounds [%(default)s]")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        score_as(arguments.peer, arguments.image, arguments.weights)
        return
    print(describe(), flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        results = measure(arguments.image, Path(scratch), arguments.rounds)
    for name, result in results.items():
        print(f"{name:>26}: {result['seconds']:5.2f} s, {result['cpu_s']:5.2f} s of CPU time")
    print(json.dumps(results))


def measure(image: Path, scratch: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Medians over the rounds; the first one, which reads the libraries from disk, is left out."""
    ours = [sys.executable, "-m", "jobs.predict", str(image)]
    commands = {"jobs.predict": ours, "jobs.predict --faces off": [*ours, "--faces", "off"]}
    for peer in PEERS:
        weights = scratch / f"{peer}.pth"
        save_weights(peer, weights)
        commands[f"as {peer}"] = [sys.executable, "-m", "benchmarks.cold_start", "--peer", peer]
        commands[f"as {peer}"] += ["--weights", str(weights), "--image", str(image)]
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, command in commands.items():
            runs[name].append(run(command))
    return {
        name: {
            "seconds": statistics.median(seconds for seconds, _ in counted[1:]),
            "cpu_s": statistics.median(cpu for _, cpu in counted[1:]),
        }
        for name, counted in runs.items()
    }


def run(command: list[str]) -> tuple[float, float]:
    """Seconds on the clock and of CPU time. Raises CalledProcessError."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return seconds, used.ru_utime + used.ru_stime


def save_weights(peer: str, file: Path) -> None:
    """Writes random weights, in a process that leaves nothing in this one's memory."""
    code = "import sys, torch; from benchmarks.cold_start import build\n"
    code += f"torch.save(build({peer!r}).state_dict(), sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)


def build(peer: str) -> Any:
    """A network of a peer's kind."""
    if peer == "xception":
        import timm

        return timm.create_model("legacy_xception", num_classes=2)
    from torchvision import models

    return models.resnet50(num_classes=1)


def score_as(peer: str, file: Path, weights: Path) -> None:
    """Does the work of a peer's script for one image."""
    import torch
    from PIL import Image
    from torchvision import transforms

    image = Image.open(file).convert("RGB")
    if peer == "xception":
        import cv2
        import numpy as np

        image = Image.fromarray(cv2.resize(np.asarray(image), (256, 256)))
    network = build(peer)
    network.load_state_dict(torch.load(weights, map_location="cpu"))
    network.eval()
    to_tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    with torch.no_grad():
        print(torch.sigmoid(network(to_tensor(image)[None])).tolist())


if __name__ == "__main__":
    main()
