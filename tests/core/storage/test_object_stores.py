"""detector_core.storage on object stores: files can be written and read, and errors take one line and few seconds."""

import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from detector_core import storage
from detector_core.data import manifest
from detector_core.errors import BadConfig, BrokenArtifact, DetectorError, OperationRefused, StorageUnavailable
from detector_core.networks import artifacts
from detector_core.registry import versions
from detector_core.registry.predictor import describe
from detector_core.storage import object_stores
from jobs.common.loopback import free_port
from tests.support.models import save_model
from tests.support.s3 import BUCKET, s3_server, use_server

ROOT = f"s3://{BUCKET}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("moto") / "log") as url:
        yield url


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    use_server(monkeypatch, server)
    return ROOT


def test_files_and_folders_can_be_written_read_and_deleted(store: str, tmp_path: Path) -> None:
    name = "a b?c%20d#e+f.jpg"  # names are used literally
    file = storage.join(store, "images", name)
    storage.write_bytes(file, b"first")
    storage.write_bytes(file, b"second")
    assert storage.read_bytes(file) == b"second"
    assert storage.names(storage.join(store, "images")) == [name]
    assert storage.exists(file)
    assert storage.exists(storage.join(store, "images"))
    assert not storage.exists(storage.join(store, "images", "a"))
    assert storage.names(storage.join(store, "none")) == []
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(store, "none"))
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    for name in ("last.json", "deep/first.bin"):
        (tmp_path / "folder" / name).write_bytes(name.encode())
    storage.put_folder(tmp_path / "folder", storage.join(store, "folder"), last="last.json")
    with storage.local_copy(storage.join(store, "folder")) as local:
        assert (local / "deep" / "first.bin").read_bytes() == b"deep/first.bin"
    storage.delete_folder(storage.join(store, "folder"))
    storage.delete_folder(storage.join(store, "folder"))
    assert not storage.exists(storage.join(store, "folder", "last.json"))


def test_a_model_can_be_saved_and_loaded(store: str, tmp_path: Path) -> None:
    storage.put_folder(save_model(tmp_path / "model"), storage.join(store, "run", "model"), last=artifacts.ARTIFACT)
    _, artifact = artifacts.load(storage.join(store, "run"))
    assert artifact.run == "tiny"
    weights = storage.join(store, "run", "model", artifacts.WEIGHTS)
    storage.write_bytes(weights, b"x")
    with pytest.raises(DetectorError, match=f"{weights} was changed"):
        artifacts.load(storage.join(store, "run"))


def test_versions_can_be_promoted_rolled_back_and_pruned(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    models = storage.join(store, "models")
    with pytest.raises(BadConfig, match=f"{models} has no live model"):
        versions.live(models)
    first = versions.promote(save_model(tmp_path / "one", run="one"), models)
    second = versions.promote(save_model(tmp_path / "two", seed=1, run="two", auc=0.95), models)
    assert versions.history(models) == versions.list_versions(models) == [second, first]
    assert versions.live_location(models) == storage.join(models, second)
    assert describe(versions.live(models)).version == second
    with pytest.raises(OperationRefused, match="is worse than the live"):
        versions.promote(save_model(tmp_path / "worse", seed=2, run="worse", auc=0.5), models)
    assert versions.rollback(models) == first
    copied = versions.live(models)
    assert copied.name == first
    assert copied.is_relative_to(tmp_path / "temporary")
    assert versions.live(models) == copied
    assert versions.prune(models, 1) == [second]
    assert versions.list_versions(models) == [first]
    assert not storage.exists(storage.join(models, second))


def test_an_incomplete_version_is_never_served(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    models, model = storage.join(store, "incomplete"), save_model(tmp_path / "one")
    put_folder = storage.put_folder

    def put_all_but_the_last(local: Path, where: str | Path, last: str) -> None:
        (local / last).unlink()
        put_folder(local, where, last)
        raise OSError("AWS Error NETWORK_CONNECTION during PutObject operation: connection lost")

    monkeypatch.setattr(storage, "put_folder", put_all_but_the_last)
    with pytest.raises(OSError, match="connection lost"):
        versions.promote(model, models)
    monkeypatch.setattr(storage, "put_folder", put_folder)
    assert versions.list_versions(models) == versions.history(models) == []
    version = versions.promote(model, models)
    weights = storage.join(models, version, artifacts.WEIGHTS)
    storage.write_bytes(weights, b"changed")
    with pytest.raises(BrokenArtifact, match="was changed"):
        versions.live(models)
    assert versions.promote(model, models) == version  # repaired
    assert versions.live(models).name == version


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3:///runs",
        "s3://key:secret@bucket/runs",
        "s3://bucket/runs?endpoint_override=127.0.0.1:9000&scheme=http",
        "gs://bucket?retry_limit_seconds=5",
    ],
)
def test_a_uri_must_be_bucket_and_path_only(uri: str) -> None:
    with pytest.raises(BadConfig, match="AWS_ENDPOINT_URL") as error:
        storage.exists(uri)
    assert "secret@" not in str(error.value)


def load_error(uri: str) -> str:
    """The error of loading a data set; checks that it has one line and is raised in time."""
    started = time.monotonic()
    with pytest.raises(StorageUnavailable) as error:
        manifest.load(uri)
    assert time.monotonic() - started < object_stores.MAX_WAIT_S
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.usefixtures("store")
def test_a_bucket_that_does_not_exist() -> None:
    assert load_error("s3://no-such-bucket/data") == (
        "s3://no-such-bucket: there is no bucket no-such-bucket: create it, or correct the name"
    )
    with pytest.raises(StorageUnavailable):
        storage.write_bytes("s3://no-such-bucket/data", b"")


def test_a_store_that_is_not_running(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    use_server(monkeypatch, url)
    for _ in range(2):  # errors are not cached
        message = load_error(f"{ROOT}/data")
        assert message.startswith(f"{ROOT} does not answer at {url} (")
        assert "AWS_ENDPOINT_URL" in message


def test_a_store_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        use_server(monkeypatch, url)
        assert f"does not answer at {url}" in load_error(f"{ROOT}/data")


def test_a_host_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    use_server(monkeypatch, "http://store.invalid:9000")
    monkeypatch.setenv("no_proxy", "store.invalid")
    assert "does not answer at http://store.invalid:9000" in load_error(f"{ROOT}/data")


def test_an_unknown_access_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first two calls are not authenticated: they create the bucket.
    with s3_server(tmp_path / "log", INITIAL_NO_AUTH_ACTION_COUNT="2") as url:
        use_server(monkeypatch, url, key="AKIAUNKNOWN")
        assert load_error(f"{ROOT}/data").startswith(f"{ROOT} denies access: credentials are missing, wrong, expired")


class _ExpiredToken(BaseHTTPRequestHandler):
    """Answers like S3 when a session token has expired: 400 with the reason in the body, which HEAD does not have."""

    def do_HEAD(self) -> None:
        self.send_response(400)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_an_expired_session_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _ExpiredToken) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        use_server(monkeypatch, f"http://127.0.0.1:{server.server_port}", key="ASIAEXPIRED")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "old")
        message = load_error(f"{ROOT}/data")
        server.shutdown()
        thread.join()
    assert message.startswith(f"{ROOT} denies access: credentials are missing, wrong, expired")
    assert "AWS_SESSION_TOKEN" in message
    put_error = (
        "AWS Error UNKNOWN (HTTP status 400) during PutObject operation: Unable to parse ExceptionName: ExpiredToken"
    )
    assert object_stores.explain(put_error, ROOT).startswith(f"{ROOT} denies access")


class _GoogleStorage(BaseHTTPRequestHandler):
    """The requests that these tests make to a bucket ``faces`` with one object ``a.jpg``."""

    bucket = "/storage/v1/b/faces"
    responses: ClassVar = {
        bucket: b'{"name": "faces"}',
        f"{bucket}/o/a.jpg": b'{"size": "3"}',
        f"{bucket}/o/a.jpg?alt=media": b"one",
    }

    def do_GET(self) -> None:
        response = self.responses.get(self.path)
        content = response or b'{"error": {"code": 404, "message": "Not Found"}}'
        self.send_response(200 if response and "Authorization" not in self.headers else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_google_storage_uses_the_endpoint_in_its_own_variable(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _GoogleStorage) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", f"{scheme}127.0.0.1:{server.server_port}")
        try:
            assert storage.exists("gs://faces/a.jpg")
            assert storage.read_bytes("gs://faces/a.jpg") == b"one"
            with pytest.raises(FileNotFoundError):
                storage.read_bytes("gs://faces/b.jpg")
            assert load_error("gs://none/data") == "gs://none: there is no bucket none: create it, or correct the name"
        finally:
            server.shutdown()
            thread.join()


def test_google_storage_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", url)
    message = load_error("gs://faces/data")
    assert message.startswith(f"gs://faces does not answer at {url} (")
    assert message.endswith(": check the network")


def test_errors_of_a_client_are_explained_in_one_line() -> None:
    message = object_stores.explain(
        "When reading information for key 'a' in bucket 'b': AWS Error ACCESS_DENIED during HeadObject operation: "
        "No response body. (Request ID: x)\nmore",
        "s3://b/a",
    )
    assert message.startswith("s3://b/a denies access")
    assert "Request ID" not in message
    unsigned = "AWS Error ACCESS_DENIED (HTTP status 403) during HeadBucket operation: No response body."
    assert "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in object_stores.explain(unsigned, "s3://b")
    assert object_stores.explain("google::cloud::Status(UNAVAILABLE: try later)", "gs://b").endswith(
        "check the network"
    )
    slow = "When uploading: AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate."
    assert object_stores.explain(slow, "s3://b/a") == "s3://b/a: AWS Error " + slow.partition("AWS Error ")[2]
    assert object_stores.explain(" ", "gs://b/a") == "gs://b/a: no reason given"
    assert object_stores.is_store_error(OSError("AWS Error SLOW_DOWN during PutObject operation: later"))
    assert not object_stores.is_store_error(OSError("No such device"))
