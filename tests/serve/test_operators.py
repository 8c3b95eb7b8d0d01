"""What operators hold in hands: settings, the file for ``serve deploy``, panels; how a replica changes its model."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient

from detector_core.errors import BadConfig
from detector_core.networks import artifacts
from detector_core.registry import versions
from detector_core.registry.predictor import Predictor, describe
from jobs.serve import read_settings
from serve_app.live_model import LiveModel
from serve_app.settings import Settings
from tests.support.http_service import PredictorClient, image_bytes, make_app, status_and_code
from tests.support.models import save_model

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docs" / "monitoring"
CONFIG = yaml.safe_load((ROOT / "serve_app" / "config.yaml").read_text())


def test_the_deployment_file_holds_settings_that_work() -> None:
    (application,) = CONFIG["applications"]
    settings = Settings(**application["args"])
    settings.check()
    assert settings.detectors.max_replicas > settings.detectors.min_replicas
    assert settings.http.timeout_s < CONFIG["http_options"]["request_timeout_s"]
    assert "deployments" not in application


KNOWN = set(re.findall(r'= "(detector_[a-z_]+)"', (ROOT / "serve_app" / "metrics.py").read_text()))


def named(expressions: Iterable[str]) -> set[str]:
    """The metrics of ours in expressions for Prometheus; fails where there is no such metric."""
    found = {name for one in expressions for name in re.findall(r"ray_(detector_[a-z_]+)", one)}
    assert found <= {name + suffix for name in KNOWN for suffix in ("", "_bucket", "_sum", "_count", "_total")}
    return {name for name in KNOWN if any(name in one for one in found)}


def test_every_panel_draws_a_metric_that_there_is() -> None:
    dashboard = json.loads((ROOT / "docs" / "grafana" / "service.json").read_text())
    assert named(target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])) == KNOWN


def test_every_alert_looks_at_a_metric_that_there_is_and_is_seen_to_fire() -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    stories = yaml.safe_load((MONITORING / "alerts.test.yml").read_text())["tests"]
    expected = json.dumps(
        [one["exp_samples"] for s in stories for one in s["promql_expr_test"] if "exp_samples" in one]
    )
    for rule in rules:
        assert named([rule["expr"]])
        assert re.search(rf"{rule['alert']}.{{0,40}}firing.{{0,20}}{rule['labels']['severity']}", expected), rule[
            "alert"
        ]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_alerts_fire_when_they_should_and_only_then() -> None:
    told = subprocess.run(["promtool", "test", "rules", str(MONITORING / "alerts.test.yml")], capture_output=True)
    assert told.returncode == 0, told.stdout + told.stderr


def test_a_replica_takes_over_what_is_live_and_keeps_the_old_where_the_new_is_broken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = tmp_path / "models"
    first = versions.promote(save_model(tmp_path / "a", run="a"), models)
    outcomes: list[bool] = []
    live_model = LiveModel(Settings(models=str(models), poll_s=3600), describe, outcomes.append)
    assert live_model.current.version == first
    second = versions.promote(save_model(tmp_path / "b", run="b", seed=1, auc=0.95), models)
    live_model.look()
    assert live_model.current.version == second
    third = versions.promote(save_model(tmp_path / "c", run="c", seed=2, auc=0.99), models)
    (models / third / artifacts.ARTIFACT).write_text("{}")
    live_model.look()
    live_model.look()
    assert live_model.current.version == second
    assert [record.levelname for record in caplog.records if "goes on" in record.message] == ["ERROR"]
    versions.rollback(models)
    versions.rollback(models)
    live_model.look()
    assert live_model.current.version == first
    assert outcomes == [True, False, True]
    live_model.stop()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "name either"),
        ({"models": "a", "model": "b"}, "name either"),
        ({"models": "a", "max_queued": 49}, "max_queued is 49"),
        ({"models": "a", "detectors": {"min_replicas": 3, "max_replicas": 2}}, "min_replicas 3"),
    ],
)
def test_settings_that_cannot_work_are_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        Settings(**values).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "said"), [("max_batch: 3", "max_batch"), ("- 1", "fields of"), ("{", "cannot be read"), (None, "No such")]
)
def test_a_settings_file_that_cannot_work_is_one_line(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "serve.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadConfig, match=said) as raised:
        read_settings(str(path), "models")
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_what_is_beyond_the_room_is_refused_in_our_form(predictor: Predictor) -> None:
    """The judge asks again from within a request, when the only place is taken."""

    class Asking(PredictorClient):
        answers: list[tuple[int, str]]

        async def predict(self, image_SSC):  # type: ignore[no-untyped-def]
            self.answers = [status_and_code(client.post("/v1/detect", content=image_bytes(), headers=JPEG))]
            return await super().predict(image_SSC)

    JPEG = {"Content-Type": "image/jpeg"}
    judge = Asking(predictor)
    client = TestClient(make_app(predictor, judge=judge, max_open=1))
    assert client.post("/v1/detect", content=image_bytes(), headers=JPEG).status_code == 200
    assert judge.answers == [(503, "unavailable")]
    assert client.post("/v1/detect", content=image_bytes(), headers=JPEG).status_code == 200
