"""Every command of docs/operate.md: run by a test of this repository, or marked as needing a cloud; its flags exist."""

import importlib
import re
import shlex
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
PAGE = (ROOT / "docs" / "operate.md").read_text()
BLOCKS = re.findall(r"^```sh (here|cloud)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [(where, line) for where, block in BLOCKS for line in block.splitlines()]
JOBS = "tests/cluster/test_jobs.py"
# what a command is like: the test that runs it, and the words by which that test does
RUN_BY = {
    r"ray start --head": (JOBS, '"start", "--head"'),
    r"ray job submit .*jobs\.prepare": (JOBS, 'head.job("prepare"'),
    r"ray job submit .*jobs\.train": (JOBS, 'head.job("train"'),
    r"ray job submit .*jobs\.tune": (JOBS, 'head.job("tune"'),
    r"ray job submit .*jobs\.evaluate": (JOBS, 'head.job("evaluate"'),
    r"ray job submit .*jobs\.promote": (JOBS, 'head.job("promote"'),
    r"ray job submit .*uv run .*jobs\.train": (JOBS, '"run", "--frozen", "--no-sync"'),
    r"ray job submit .*jobs\.reproduce": ("tests/jobs/test_reproduce.py", "jobs.reproduce"),
    r"export RAY_API_SERVER_ADDRESS=": (JOBS, '"--address", self.address'),
    r"python -m serve_app --models s3://": ("tests/jobs/test_object_store.py", '"serve_app", "--models"'),
    r"make dashboards": (JOBS, "docs/monitoring/start.sh"),
    r"python docs/kubernetes/service.py": ("tests/cluster/test_manifests.py", "service.py"),
}
OURS = re.compile(r"python -m (jobs\.\w+|serve_app) ?(.*)$")


def test_every_block_of_commands_says_where_it_can_run() -> None:
    assert BLOCKS
    assert PAGE.count("\n```sh") == len(BLOCKS)
    assert {where for where, _ in COMMANDS} == {"here", "cloud"}


@pytest.mark.parametrize("command", [line for where, line in COMMANDS if where == "here"])
def test_a_command_that_can_run_here_is_run_by_a_test(command: str) -> None:
    found = [evidence for pattern, evidence in RUN_BY.items() if re.match(pattern, command)]
    assert found, f"no test runs {command}"
    for test, words in found:
        assert words in (ROOT / test).read_text(), f"{test} no longer runs {command}"


@pytest.mark.parametrize("command", [line for _, line in COMMANDS if OURS.search(line)])
def test_the_flags_of_our_commands_exist(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = OURS.search(command)
    assert found
    module, arguments = found[1], shlex.split(found[2])
    if module == "serve_app":
        with pytest.raises(SystemExit):
            importlib.import_module("serve_app.__main__").main(["--help"])
        usage = capsys.readouterr().out
        assert all(flag in usage for flag in arguments if flag.startswith("--"))
        return
    parsed = []
    monkeypatch.setattr(jobs.common.cli, "run", lambda _, namespace: parsed.append(namespace))
    importlib.import_module(module).main(arguments)
    assert parsed


@pytest.mark.parametrize("command", [line for _, line in COMMANDS if line.startswith("ray ")])
def test_the_flags_of_ray_s_commands_exist(command: str) -> None:
    words = shlex.split(command.partition(" -- ")[0])[1:]
    found: click.Command = ray_cli
    while isinstance(found, click.Group) and words:
        found = found.commands[words.pop(0)]
    options = {name for parameter in found.params for name in parameter.opts}
    assert [word for word in words if word.startswith("--") and word not in options] == []


def test_the_counted_work_of_the_paper_s_network_is_what_the_page_says() -> None:
    spec = spec_for("resnet68")
    side = spec.preprocess.image_size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build(spec.model, pretrained=False).eval()(torch.zeros(1, 3, side, side))
    assert f"| {counter.get_total_flops() / 1e9:.1f} at {side} px |" in PAGE


def test_every_make_target_and_file_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", " ".join(line for _, line in COMMANDS))) <= targets
    for name in re.findall(r"`((?:tests|docs|serve_app|jobs)/[\w./]+\.\w+)`", PAGE):
        assert (ROOT / name).exists() or name == "reliability/cluster/run.sh", name
