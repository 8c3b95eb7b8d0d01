"""Settings: their checks, the file for serve deploy, and their documentation."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from detector_core.errors import BadConfig
from serve_app import settings_table
from serve_app.settings import HttpSettings, Limits, Settings

ROOT = Path(__file__).parents[2]


def test_the_file_for_serve_deploy_has_valid_settings() -> None:
    config = yaml.safe_load((ROOT / "serve_app" / "config.yaml").read_text())
    (application,) = config["applications"]
    settings = Settings(**application["args"])
    settings.check()
    assert settings.detectors.max_replicas > settings.detectors.min_replicas
    assert settings.http.timeout_s < config["http_options"]["request_timeout_s"]
    assert "deployments" not in application


def test_a_replica_runs_the_model_itself_unless_that_needs_a_gpu() -> None:
    assert Settings(models="m").together
    assert not Settings(models="m", detector_gpus=0.5).together
    assert not Settings(models="m", layout="apart").together
    assert Settings(models="m", layout="together", detector_gpus=1).together
    assert Settings(models="m", detector_cpus=2).minimum_resources() == {"CPU": 2, "GPU": 0}


def test_haproxy_is_told_the_limits_of_the_service() -> None:
    limits = Limits(max_bytes=1000, max_files=1, frames=0)
    http = HttpSettings(limits=limits, timeout_s=4.5, trusted_proxies=["10.0.0.1", "10.1.2.3/16"])
    told = Settings(models="m", http=http, front={"header_s": 3}).front_limits("0.0.0.0")
    assert (told.bind, told.body_bytes, told.body_s, told.header_s) == ("0.0.0.0", 1000, 5, 3)
    assert told.trusted_proxies == ("10.0.0.1/32", "10.1.0.0/16")
    with pytest.raises(BadConfig, match=r"trusted_proxies.*proxy\.example"):
        Settings(models="m", http={"trusted_proxies": ["proxy.example"]}).front_limits()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "set either models"),
        ({"models": "a", "model": "b"}, "set either models"),
        ({"models": "a", "max_queued": 49}, "max_queued is 49: it must be at least .* 10 x 5"),
        ({"models": "a", "detectors": {"min_replicas": 3, "max_replicas": 2}}, "detectors.min_replicas is 3"),
    ],
)
def test_settings_that_contradict_each_other_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        Settings(**values).check()


def test_the_default_capacity_is_eight_of_the_largest_requests() -> None:
    assert HttpSettings().capacity_bytes == 8 * 50 * 2**20
    assert HttpSettings(limits=Limits(frames=0)).capacity_bytes == 8 * 20 * 2**20
    assert HttpSettings(max_open_bytes=2**30).capacity_bytes == 2**30


def test_a_capacity_below_the_largest_request_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_open_bytes is 1000: it must be 0 or at least 52428800"):
        HttpSettings(max_open_bytes=1000)


def test_the_settings_in_the_docs_are_current() -> None:
    page = (ROOT / "docs" / "http-api.md").read_text()
    assert settings_table.rewrite(page) == page, "run: make settings"


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="settings: begin"):
        settings_table.rewrite("# A page\n")


def test_every_setting_is_described_in_full_sentences() -> None:
    rows = [line.split(" | ") for line in settings_table.tables().splitlines() if line.startswith("| `")]
    assert len(rows) > 30
    for name, _, description in rows:
        assert description.removesuffix(" |").endswith("."), name
