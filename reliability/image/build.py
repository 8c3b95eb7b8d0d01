"""Plays the stages of the Dockerfile in folders with Debian, which take the place of images, by chroot.

Where Docker pulls an image, ``python:X-slim-bookworm`` becomes a Debian bookworm with its own Python of that minor
version, made by mmdebstrap, and that of uv a folder with the uv of this machine. Everything else is done as written.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from reliability.image.dockerfile import Instruction, Stage

PROJECT = Path(__file__).parents[2]
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy")
"""Variables that Docker passes on to a build."""
MOUNTS = """
set -e
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs -o size=1g shm "$ROOT/dev/shm"
"""


class Failed(Exception):
    """A step failed; the message has its output."""


class Builder:
    """Builds stages one after another below a folder; see :meth:`build`.

    Args:
        folder: must be empty; takes as much room as the image, about 10 GB.
        uv_cache: the folder of uv's downloads, as the cache mount of the Dockerfile.
    """

    def __init__(self, folder: Path, uv_cache: Path) -> None:
        self.folder, self.uv_cache = folder, uv_cache
        self.roots: dict[str, Path] = {}

    def build(self, stage: Stage) -> Path:
        """Builds one stage; the folder that takes the place of its image."""
        root = self.folder / (stage.name or "image")
        self.roots[stage.name] = root
        if "/uv:" in stage.image:
            root.mkdir()
            shutil.copy(shutil.which("uv") or PROJECT / ".uv" / "bin" / "uv", root / "uv")
            return root
        self._begin(stage.image, root)
        environment: dict[str, str] = {}
        workdir = "/"
        for step in stage.steps:
            if step.name == "ENV":
                environment |= self.variables(step, environment)
            elif step.name == "WORKDIR":
                workdir = step.text
                (root / workdir.lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif step.name == "COPY":
                self._copy(step, root, workdir)
            elif step.name == "RUN":
                self._run(step, root, workdir, environment)
        return root

    def _begin(self, image: str, root: Path) -> None:
        version, suite = re.findall(r"python:(\d+\.\d+)\.\d+-slim-(\w+)$", image)[0]
        base = self.folder / suite
        if not base.exists():
            packages = f"ca-certificates,python{version},python3"
            _check(["mmdebstrap", "--quiet", "--variant=apt", f"--include={packages}", suite, str(base)])
            shutil.copy(CERTIFICATES, base / CERTIFICATES.relative_to("/"))
            shutil.copy("/etc/resolv.conf", base / "etc" / "resolv.conf")
            for name in ("python", "python3"):  # where the image has it
                (base / "usr/local/bin" / name).symlink_to(f"/usr/bin/python{version}")
        _check(["cp", "-a", str(base), str(root)])

    @staticmethod
    def variables(step: Instruction, known: dict[str, str]) -> dict[str, str]:
        pairs = dict(word.partition("=")[::2] for word in step.words())
        path = known.get("PATH", "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin")
        return {name: value.replace("$PATH", path) for name, value in pairs.items()}

    def _copy(self, step: Instruction, root: Path, workdir: str) -> None:
        """Copies from the project, or by hard links from a finished stage, which nothing changes any more."""
        *sources, target = step.words()
        destination = root / os.path.normpath(f"{workdir}/{target}").lstrip("/")
        destination.parent.mkdir(parents=True, exist_ok=True)
        origin = self.roots[step.flags["from"]] if "from" in step.flags else PROJECT
        for source in sources:
            place = destination / Path(source).name if target.endswith("/") else destination
            if (origin / source.lstrip("/")).is_dir():
                place = destination
            how = "-al" if "from" in step.flags else "-a"
            _check(["cp", how, "-T", str(origin / source.lstrip("/")), str(place)])

    def _run(self, step: Instruction, root: Path, workdir: str, environment: dict[str, str]) -> None:
        mounts = ""
        if "mount" in step.flags:
            target = re.findall(r"^type=cache,target=(\S+)$", step.flags["mount"])[0]
            (root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
            mounts = f"mount --bind {shlex.quote(str(self.uv_cache))} {shlex.quote(f'{root}{target}')}\n"
        _check(command(root, step.text, workdir=workdir, environment=environment, mounts=mounts))


def command(
    root: Path, line: str, *, workdir: str, environment: dict[str, str], user: str = "0", mounts: str = ""
) -> list[str]:
    """A command that runs a shell line in a root folder, with mounts and processes of its own."""
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    variables = {"PATH": "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin", "HOME": "/root", **passed_on, **environment}
    words = ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]
    words += ["sh", "-c", f"cd {shlex.quote(workdir)} && {line}"]
    inner = f'{MOUNTS}{mounts}exec chroot --userspec={user}:{user} "$ROOT" {shlex.join(words)}'
    script = f"ROOT={shlex.quote(str(root))}; {inner}"
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", script]


def _check(words: list[str]) -> None:
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode:
        raise Failed(f"{shlex.join(words)[-600:]}\nended with {done.returncode}:\n{done.stdout[-4000:]}")
