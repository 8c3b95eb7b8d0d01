"""The settings file of ``jobs.serve``."""

from pathlib import Path

import pytest

from detector_core.errors import BadConfig
from jobs.serve import main, reachable, read_settings


def test_the_fields_of_a_settings_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text("http: {requests_per_minute: 120}\nmax_batch_size: 4\n")
    settings = read_settings(str(tmp_path / "serve.yaml"), "models")
    assert (settings.models, settings.max_batch_size, settings.http.requests_per_minute) == ("models", 4, 120)


def test_without_a_settings_file_the_defaults_are_used() -> None:
    assert read_settings(None, "models").http.requests_per_minute == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch: 3", "there is no setting max_batch"),
        ("applications: []", "serve deploy"),
        ("- 1", "must be a YAML or JSON object"),
        ("models: /srv/models", "sets models: remove it, and name the folder of the models with --models"),
        ("model: runs/one", "sets model: remove it"),
        ("{", "cannot be read"),
        (None, "No such"),
    ],
)
def test_an_invalid_settings_file_is_reported_in_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "serve.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadConfig, match=message) as error:
        read_settings(str(path), "models")
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_without_the_starter_an_empty_folder_is_refused_and_stays_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--no-starter", "--models", str(tmp_path / "modles")])
    assert ended.value.code == 1
    assert "modles has no live model: promote one" in capsys.readouterr().err
    assert not (tmp_path / "modles").exists()


@pytest.mark.parametrize(
    ("host", "in_a_url"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("fe80::1", "[fe80::1]"), ("a.b", "a.b")],
)
def test_the_address_that_is_printed_can_be_opened_on_this_machine(host: str, in_a_url: str) -> None:
    assert reachable(host) == in_a_url
