"""Builds what the Dockerfile describes without Docker, starts it as its user, and sends it an image.

  python -m reliability.image

Every instruction is carried out in a folder with Debian (chroot), which takes the place of the image; see build.py for
what differs. The finished image is started with its own ENTRYPOINT and CMD, as its USER, in a network of its own, must
pass its HEALTHCHECK, answer an image, and end with code 0 on SIGTERM. Needs root, Debian's mmdebstrap, uv, and 12 GB.

Prints the seconds of each stage, and one JSON object as the last line. Exits with 1 if a step fails, and with 77 if
this machine cannot do it.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from detector_core.registry import versions
from reliability.image.build import PROJECT, Builder, Failed, command
from reliability.image.dockerfile import Stage, parse
from tests.support.http_service import image_bytes
from tests.support.models import save_model

CANNOT_BUILD, READY_S, ROOM_BYTES = 77, 180, 12 * 2**30


def main() -> NoReturn:
    """Runs the command line."""
    argparse.ArgumentParser(
        prog="python -m reliability.image", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    reason = _why_not()
    if reason:
        print(f"skipped: {reason}", file=sys.stderr)
        sys.exit(CANNOT_BUILD)
    folder = Path(tempfile.mkdtemp(prefix="image-", dir="/var/tmp"))
    try:
        result = build_and_start(folder)
    except Failed as error:
        sys.exit(f"error: {error}")
    finally:
        shutil.rmtree(folder)
    print(json.dumps(result))
    sys.exit(0)


def _why_not() -> str:
    if os.geteuid():
        return "only root can chroot"
    for program in ("mmdebstrap", "unshare", "chroot"):
        if not shutil.which(program):
            return f"{program} is not installed (Debian: mmdebstrap util-linux coreutils)"
    if shutil.disk_usage("/var/tmp").free < ROOM_BYTES:
        return "the image needs 12 GB in /var/tmp"
    return ""


def build_and_start(folder: Path) -> dict[str, Any]:
    """Builds all stages and starts the last one; returns the seconds of each, and what the service answered."""
    uv = shutil.which("uv") or str(PROJECT / ".uv" / "bin" / "uv")
    cache = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    builder, seconds = Builder(folder, Path(cache)), dict[str, float]()
    stages = parse((PROJECT / "Dockerfile").read_text())
    for stage in stages:
        started = time.monotonic()
        root = builder.build(stage)
        name = stage.name or "image"
        seconds[name] = round(time.monotonic() - started, 1)
        print(f"built {seconds[name]:6.1f} s  {name} ({stage.image})", file=sys.stderr, flush=True)
    started = time.monotonic()
    verdict = _start(stages[-1], root)
    return {"seconds": {**seconds, "started and answered": round(time.monotonic() - started, 1)}, "verdict": verdict}


def _start(stage: Stage, root: Path) -> str:
    """Starts the service in the image; the verdict about an image. Raises Failed."""
    versions.promote(save_model(root / "tmp" / "model", generated=False), root / "srv" / "models")
    (root / "tmp" / "image.jpg").write_bytes(image_bytes((256, 256)))
    user, workdir = stage.last("USER").text, stage.last("WORKDIR").text
    environment = {"HOME": "/home/ray"}
    for step in stage.steps:
        if step.name == "ENV":
            environment |= Builder.variables(step, environment)
    line = f"exec {shlex.join([*stage.last('ENTRYPOINT').words(), *stage.last('CMD').words()])}"
    words = command(root, line, workdir=workdir, environment=environment, user=user)
    with (root / "tmp" / "log").open("w+") as log:
        lonely = ["unshare", "--net", "bash", "-c", f"ip link set lo up && exec {shlex.join(words)}"]
        service = subprocess.Popen(lonely, stdout=log, stderr=subprocess.STDOUT)
        try:
            health = stage.last("HEALTHCHECK").text.removeprefix("CMD ")
            _wait(service, root, shlex.join(json.loads(health)))
            request = "wget -q -O - --header=Content-Type:image/jpeg --post-file=/tmp/image.jpg http://127.0.0.1:8000/v1/detect"
            answer = json.loads(_inside(service, root, request).stdout)
            _inside(service, root, "kill -TERM 1")
            code = service.wait(60)
            if code:
                raise Failed(f"the service ended with {code} on SIGTERM")
            return str(answer["results"][0]["verdict"])
        except (Failed, ValueError, LookupError) as error:
            log.seek(0)
            raise Failed(f"{error}\n{log.read()[-4000:]}") from None
        finally:
            service.kill()
            service.wait()


def _wait(service: "subprocess.Popen[bytes]", root: Path, health: str) -> None:
    deadline = time.monotonic() + READY_S
    while _inside(service, root, health).returncode:
        if service.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"the image did not pass its HEALTHCHECK within {READY_S} s: {health}")
        time.sleep(1)


def _inside(service: "subprocess.Popen[bytes]", root: Path, line: str) -> "subprocess.CompletedProcess[str]":
    """Runs a shell line next to the service: in its network, with its processes, in its root folder."""
    children = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()
    enter = ["nsenter", "--target", children[0] if children else str(service.pid), "--net", "--pid", "--mount"]
    words = [*enter, "chroot", str(root), "sh", "-c", line]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


if __name__ == "__main__":
    main()
