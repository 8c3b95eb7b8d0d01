"""The Grafana dashboard and the alert rules use the metrics that the service exports."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from reliability.alerts.causes import CAUSES
from reliability.alerts.monitoring import shortened_rules

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docs" / "monitoring"
RULE_TESTS = sorted(MONITORING.glob("alerts*.test.yml"))
EXPORTED = set(re.findall(r'= "(detector_[a-z_]+)"', (ROOT / "serve_app" / "metrics.py").read_text()))
SUFFIXES = ("", "_bucket", "_sum", "_count", "_total")


def metrics_in(expressions: Iterable[str]) -> set[str]:
    """The names of this project's metrics in PromQL expressions; fails if the service does not export one of them."""
    series = {name for expression in expressions for name in re.findall(r"ray_(detector_[a-z_]+)", expression)}
    assert series <= {name + suffix for name in EXPORTED for suffix in SUFFIXES}
    return {name for name in EXPORTED if any(name + suffix in series for suffix in SUFFIXES)}


def test_the_dashboard_shows_every_exported_metric() -> None:
    dashboard = json.loads((ROOT / "docs" / "grafana" / "service.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert metrics_in(expressions) == EXPORTED


def test_every_alert_uses_exported_metrics_and_fires_in_a_test_of_the_rules() -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    cases = [case for file in RULE_TESTS for case in yaml.safe_load(file.read_text())["tests"]]
    expected = json.dumps([query.get("exp_samples") for case in cases for query in case["promql_expr_test"]])
    for rule in rules:
        assert metrics_in([rule["expr"]])
        name, severity = rule["alert"], rule["labels"]["severity"]
        assert re.search(rf"{name}.{{0,40}}firing.{{0,20}}{severity}", expected), name


def test_the_runbook_has_every_alert_with_its_severity() -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    runbook = (ROOT / "docs" / "operate.md").read_text().partition("### Runbook")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| [^|]+ \| [^|]+ \| [^|]+ \|$", runbook, flags=re.MULTILINE)
    assert sorted(rows) == sorted((rule["alert"], rule["labels"]["severity"]) for rule in rules)
    assert {cause.alert for cause in CAUSES} == {rule["alert"] for rule in rules}
    assert shortened_rules()


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed (Debian: prometheus-alertmanager)")
@pytest.mark.parametrize(("severity", "receiver"), [("page", "pager"), ("ticket", "tickets")])
def test_alertmanager_accepts_its_configuration_and_sends_each_severity_elsewhere(severity: str, receiver: str) -> None:
    config = f"--config.file={MONITORING / 'alertmanager.yml'}"
    routed = subprocess.run(
        ["amtool", "config", "routes", "test", config, f"severity={severity}"], capture_output=True, text=True
    )
    assert (routed.returncode, routed.stdout.split()) == (0, [receiver]), routed.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_the_alerts_fire_exactly_when_they_should() -> None:
    result = subprocess.run(["promtool", "test", "rules", *RULE_TESTS], capture_output=True)
    assert result.returncode == 0, result.stdout + result.stderr
