"""The documentation works: its commands parse, its make targets exist, its links lead somewhere."""

import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from ray.scripts.scripts import cli as ray_cli
from torch.utils.flop_counter import FlopCounterMode

import jobs.common.cli
from detector_core.networks.factory import build
from detector_core.networks.variants import spec_for

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("reliability/**/*.md")]
CODE = re.compile(r"^```sh[^\n]*\n(.*?)^```$|((?:^ {4}[^\n]*\n)+)", flags=re.MULTILINE | re.DOTALL)
COMMANDS = sorted(
    {
        line.strip()
        for page in PAGES
        for blocks in CODE.findall(page.read_text())
        for line in "".join(blocks).replace("\\\n", " ").splitlines()
    }
)
JOB = re.compile(r"python -m (jobs\.\w+) ?([^#|]*)")
MAKE = re.compile(r"^make ([^#]*)")
RAY = re.compile(r"^(?:\.venv/bin/)?ray ([^#>]*)")


def matching(pattern: re.Pattern[str]) -> list[str]:
    found = [command for command in COMMANDS if pattern.search(command)]
    assert found, pattern
    return found


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # jobs.serve imports ray.serve, which uses Pydantic's old names
@pytest.mark.parametrize("command", matching(JOB))
def test_the_arguments_of_a_job_parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    match = JOB.search(command)
    assert match
    parsed = []
    for run in ("run", "run_server"):
        monkeypatch.setattr(jobs.common.cli, run, lambda _, arguments: parsed.append(arguments))
    importlib.import_module(match[1]).main(shlex.split(match[2]))
    assert parsed


@pytest.mark.parametrize("command", matching(RAY))
def test_the_flags_of_ray_exist(command: str) -> None:
    match = RAY.match(command)
    assert match
    words = shlex.split(match[1].partition(" -- ")[0])
    subcommand: click.Command = ray_cli
    while isinstance(subcommand, click.Group) and words:
        subcommand = subcommand.commands[words.pop(0)]
    options = {name for parameter in subcommand.params for name in parameter.opts}
    assert [word for word in words if word.startswith("--") and word not in options] == []


@pytest.mark.parametrize("command", matching(MAKE))
def test_a_make_target_exists(command: str) -> None:
    match = MAKE.match(command)
    assert match
    subprocess.run(["make", "--dry-run", *shlex.split(match[1])], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_links_of_a_page_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_operations_of_the_paper_s_network_are_those_in_the_documentation() -> None:
    spec = spec_for("resnet68")
    side = spec.preprocess.image_size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build(spec.model, pretrained=False).eval()(torch.zeros(1, 3, side, side))
    assert f"| {counter.get_total_flops() / 1e9:.1f} at {side} px |" in (ROOT / "docs" / "operate.md").read_text()


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (Debian: systemd)"
)
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """As it is documented, but for paths and the user, which exist only where it is installed."""
    text = (ROOT / "docs" / "operate.md").read_text()
    (block,) = re.findall(r"^    \[Service\]\n(?:    .*\n|\n(?=    ))+", text, re.MULTILINE)
    unit = re.sub("(?m)^    ", "", block).replace("/srv/detector/.venv/bin/python", sys.executable)
    for place, here in (("User=detector", "User=root"), ("/srv/detector", "/"), ("/home/detector", "/root")):
        unit = unit.replace(place, here)
    (tmp_path / "detector.service").write_text(unit)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "detector.service")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
