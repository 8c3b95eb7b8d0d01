"""Object stores: what goes in comes out, and what is wrong is said in one line within seconds."""

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
from detector_core.errors import BadConfig, BrokenArtifact, DetectorError, StorageUnavailable, OperationRefused
from detector_core.networks import artifacts
from detector_core.registry import versions
from detector_core.registry.predictor import describe
from detector_core.storage import object_stores
from jobs.common.loopback import free_port
from tests.support.models import save_model
from tests.support.s3 import BUCKET, s3_server, use

WITHIN_S = object_stores.PATIENCE_S
TOP = f"s3://{BUCKET}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("moto") / "log") as url:
        yield url


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    use(monkeypatch, server)
    return TOP


def test_files_and_folders_come_back(store: str, tmp_path: Path) -> None:
    odd = storage.join(store, "odd", "a b?c%20d#e+f.jpg")  # names of images are taken as they are
    storage.write_bytes(odd, b"one")
    storage.write_bytes(odd, b"two")
    assert storage.read_bytes(odd) == b"two"
    assert storage.names(storage.join(store, "odd")) == ["a b?c%20d#e+f.jpg"]
    assert storage.exists(odd)
    assert storage.exists(storage.join(store, "odd"))
    assert not storage.exists(storage.join(store, "odd", "a"))
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


def test_a_model_is_saved_and_loaded(store: str, tmp_path: Path) -> None:
    storage.put_folder(save_model(tmp_path / "model"), storage.join(store, "run", "model"), last=artifacts.ARTIFACT)
    _, artifact = artifacts.load(storage.join(store, "run"))
    assert artifact.run == "tiny"
    broken = storage.join(store, "run", "model", artifacts.WEIGHTS)
    storage.write_bytes(broken, b"x")
    with pytest.raises(DetectorError, match=f"{broken} was changed"):
        artifacts.load(storage.join(store, "run"))


def test_versions_live_in_a_store(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    models = storage.join(store, "models")
    with pytest.raises(BadConfig, match=f"{models} has no live model"):
        versions.live(models)
    one = versions.promote(save_model(tmp_path / "one", run="one"), models)
    two = versions.promote(save_model(tmp_path / "two", seed=1, run="two", auc=0.95), models)
    assert versions.history(models) == versions.list_versions(models) == [two, one]
    assert versions.live_location(models) == storage.join(models, two)
    assert describe(versions.live(models)).version == two
    with pytest.raises(OperationRefused, match="is worse than the live"):
        versions.promote(save_model(tmp_path / "worse", seed=2, run="worse", auc=0.5), models)
    assert versions.rollback(models) == one
    copied = versions.live(models)
    assert copied.name == one
    assert copied.is_relative_to(tmp_path / "temporary")
    assert versions.live(models) == copied
    assert versions.prune(models, 1) == [two]
    assert versions.list_versions(models) == [one]
    assert not storage.exists(storage.join(models, two))


def test_a_version_that_is_not_whole_is_never_served(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    models, model = storage.join(store, "torn"), save_model(tmp_path / "one")
    put, failing = storage.put_folder, OSError("AWS Error NETWORK_CONNECTION during PutObject operation: gone")

    def breaks_off(local: Path, where: str | Path, last: str) -> None:
        (local / last).unlink()
        put(local, where, last)
        raise failing

    monkeypatch.setattr(storage, "put_folder", breaks_off)
    with pytest.raises(OSError, match="gone"):
        versions.promote(model, models)
    monkeypatch.setattr(storage, "put_folder", put)
    assert versions.list_versions(models) == versions.history(models) == []
    version = versions.promote(model, models)
    weights = storage.join(models, version, artifacts.WEIGHTS)
    storage.write_bytes(weights, b"changed")
    with pytest.raises(BrokenArtifact, match="was changed"):
        versions.live(models)
    assert versions.promote(model, models) == version  # mended
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
def test_a_uri_is_bucket_and_path_alone(uri: str) -> None:
    with pytest.raises(BadConfig, match="AWS_ENDPOINT_URL") as told:
        storage.exists(uri)
    assert "secret@" not in str(told.value)


def refused(uri: str) -> str:
    """What opening a data set there says, and that it says so in time, in one line, the second time as the first."""
    started = time.monotonic()
    with pytest.raises(StorageUnavailable) as told:
        manifest.load(uri)
    assert time.monotonic() - started < WITHIN_S
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.usefixtures("store")
def test_a_bucket_that_is_not_there() -> None:
    assert refused("s3://no-such-bucket/data") == (
        "s3://no-such-bucket: there is no bucket no-such-bucket: make it, or correct the name"
    )
    with pytest.raises(StorageUnavailable):
        storage.write_bytes("s3://no-such-bucket/data", b"")


def test_a_store_that_nobody_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    use(monkeypatch, url)
    for _ in range(2):
        said = refused(f"{TOP}/data")
        assert said.startswith(f"{TOP} does not answer at {url} (")
        assert "AWS_ENDPOINT_URL" in said


def test_a_store_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        use(monkeypatch, url)
        assert f"does not answer at {url}" in refused(f"{TOP}/data")


def test_a_name_that_no_one_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "http://store.invalid:9000")
    monkeypatch.setenv("no_proxy", "store.invalid")
    assert "does not answer at http://store.invalid:9000" in refused(f"{TOP}/data")


def test_a_key_that_the_store_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The calls that are not checked make the bucket.
    with s3_server(tmp_path / "log", INITIAL_NO_AUTH_ACTION_COUNT="2") as url:
        use(monkeypatch, url, key="AKIAUNKNOWN")
        assert refused(f"{TOP}/data").startswith(f"{TOP} refuses these credentials: missing, wrong, expired")


class _Expired(BaseHTTPRequestHandler):
    """Answers as S3 does when a session token has expired: 400, with the reason in the body, which HEAD has not."""

    def do_HEAD(self) -> None:
        self.send_response(400)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_session_token_that_has_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Expired) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        use(monkeypatch, f"http://127.0.0.1:{server.server_port}", key="ASIAEXPIRED")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "old")
        said = refused(f"{TOP}/data")
        server.shutdown()
        thread.join()
    assert said.startswith(f"{TOP} refuses these credentials: missing, wrong, expired")
    assert "AWS_SESSION_TOKEN" in said
    later = (
        "AWS Error UNKNOWN (HTTP status 400) during PutObject operation: Unable to parse ExceptionName: ExpiredToken"
    )
    assert object_stores.explain(later, TOP).startswith(f"{TOP} refuses these credentials")


class _Google(BaseHTTPRequestHandler):
    """A bucket ``faces`` with one object ``a.jpg``, as far as it is asked here."""

    bucket = "/storage/v1/b/faces"
    answers: ClassVar = {
        bucket: b'{"name": "faces"}',
        f"{bucket}/o/a.jpg": b'{"size": "3"}',
        f"{bucket}/o/a.jpg?alt=media": b"one",
    }

    def do_GET(self) -> None:
        found = self.answers.get(self.path)
        content = found or b'{"error": {"code": 404, "message": "Not Found"}}'
        self.send_response(200 if found and "Authorization" not in self.headers else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_google_s_store_is_found_by_its_own_variable(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Google) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", f"{scheme}127.0.0.1:{server.server_port}")
        try:
            assert storage.exists("gs://faces/a.jpg")
            assert storage.read_bytes("gs://faces/a.jpg") == b"one"
            with pytest.raises(FileNotFoundError):
                storage.read_bytes("gs://faces/b.jpg")
            assert refused("gs://none/data") == "gs://none: there is no bucket none: make it, or correct the name"
        finally:
            server.shutdown()
            thread.join()


def test_google_s_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", url)
    said = refused("gs://faces/data")
    assert said.startswith(f"gs://faces does not answer at {url} (")
    assert said.endswith(": check the network")


def test_what_a_store_says_is_put_in_one_line() -> None:
    said = object_stores.explain(
        "When reading information for key 'a' in bucket 'b': AWS Error ACCESS_DENIED during HeadObject operation: "
        "No response body. (Request ID: x)\nmore",
        "s3://b/a",
    )
    assert said.startswith("s3://b/a refuses these credentials")
    assert "Request ID" not in said
    # What an unsigned request is answered.
    missing = "AWS Error ACCESS_DENIED (HTTP status 403) during HeadBucket operation: No response body."
    assert "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in object_stores.explain(missing, "s3://b")
    assert object_stores.explain("google::cloud::Status(UNAVAILABLE: try later)", "gs://b").endswith(
        "check the network"
    )
    slow = "When uploading: AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate."
    assert object_stores.explain(slow, "s3://b/a") == "s3://b/a: AWS Error " + slow.partition("AWS Error ")[2]
    assert object_stores.explain(" ", "gs://b/a") == "gs://b/a: no reason given"
    assert object_stores.is_store_error(OSError("AWS Error SLOW_DOWN during PutObject operation: later"))
    assert not object_stores.is_store_error(OSError("No such device"))
