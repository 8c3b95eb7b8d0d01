"""jobs.run.spec_flags: spec files, which may record the cores per worker next to the RunSpec, as best.json does."""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from detector_core.config import RunSpec
from detector_core.errors import BadConfig
from jobs.run import resource_flags, spec_flags


def spec_file(folder: Path, spec: RunSpec, **more: Any) -> str:
    path = folder / "best.json"
    path.write_text(json.dumps({**spec.to_dict(), **more}))
    return str(path)


def test_recorded_cores_are_read_and_kept_out_of_the_spec(tmp_path: Path, tiny_spec: RunSpec) -> None:
    best = spec_file(tmp_path, tiny_spec, cpus_per_worker=3)
    assert spec_flags.recorded_cpus(best) == 3
    parser = argparse.ArgumentParser()
    spec_flags.add_flags(parser)
    assert spec_flags.from_flags(parser.parse_args(["--spec", best]), tiny_spec.variant) == tiny_spec


def test_a_spec_file_need_not_record_cores(tmp_path: Path, tiny_spec: RunSpec) -> None:
    assert spec_flags.recorded_cpus(spec_file(tmp_path, tiny_spec)) is None
    assert spec_flags.recorded_cpus(None) is None


@pytest.mark.parametrize("cpus", [0, -1, 1.5, "2", True])
def test_an_invalid_number_of_recorded_cores_is_refused(tmp_path: Path, tiny_spec: RunSpec, cpus: object) -> None:
    with pytest.raises(BadConfig, match=r"best\.json: cpus_per_worker is .*: it must be a number of cores"):
        spec_flags.recorded_cpus(spec_file(tmp_path, tiny_spec, cpus_per_worker=cpus))


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "must be a JSON object")])
def test_a_file_that_is_not_a_spec_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "best.json").write_text(text)
    with pytest.raises(BadConfig, match=message):
        spec_flags.recorded_cpus(str(tmp_path / "best.json"))


@pytest.mark.parametrize(("cpus", "expected"), [(1, 1), (4, 4), (5, None)])
def test_recorded_cores_are_used_if_the_cluster_has_as_many(
    tmp_path: Path,
    tiny_spec: RunSpec,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cpus: int,
    expected: int | None,
) -> None:
    ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 8.0})
    monkeypatch.setattr(resource_flags, "ray", ray)
    best = spec_file(tmp_path, tiny_spec, cpus_per_worker=cpus)
    assert resource_flags._recorded_cpus(best, workers=2) == expected
    assert ("the result may differ" in capsys.readouterr().err) == (expected is None)
