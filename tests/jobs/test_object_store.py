"""Every job on an object store: prepare, train, resume after SIGKILL, evaluate, promote and serve."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pyarrow import fs

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.data import manifest
from detector_core.storage import object_stores
from jobs.common.loopback import free_port
from tests.support.cluster import head_node
from tests.support.progress import Process
from tests.support.s3 import BUCKET, s3_server, use_server

TOP = f"s3://{BUCKET}"
RUN = f"{TOP}/runs/one"


@pytest.fixture(scope="module")
def images(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The images of the tiny data set on a server of this module; their URI."""
    with s3_server(tmp_path_factory.mktemp("moto") / "log") as url, pytest.MonkeyPatch.context() as patch:
        use_server(patch, url)
        store, path = storage.locate(f"{TOP}/images")
        fs.copy_files(manifest.load(str(tiny_dataset)).root, path, destination_filesystem=store)
        yield f"{TOP}/images"


@pytest.fixture
def ray_with_store(images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:  # noqa: ARG001
    """A cluster whose processes reach the store, as the one that jobs use; yields their folder for temporary files."""
    (tmp_path / "temporary").mkdir()
    with head_node(token=os.environ["RAY_AUTH_TOKEN"], TMPDIR=str(tmp_path / "temporary")) as head:
        monkeypatch.setenv("RAY_ADDRESS", head.address)
        yield tmp_path / "temporary"


def start(verb: str, *flags: str) -> Process:
    return Process([sys.executable, "-m", f"jobs.{verb}", *flags])


def lines(uri: str) -> int:
    return len(storage.read_bytes(uri).splitlines()) if storage.exists(uri) else 0


def test_every_job_works_on_an_object_store(
    images: str, ray_with_store: Path, tiny_spec: RunSpec, run_job: Any
) -> None:
    def job(verb: str, *flags: str) -> dict[str, Any]:
        done = run_job(verb, *flags)
        assert done.code == 0, done.messages
        return dict(done.result)

    made = job("prepare", images, "--out", f"{TOP}/datasets/tiny", "--name", "tiny")
    assert made["images"] == 80
    assert storage.names(made["dataset"]) == ["audit.json", "dataset.json", "manifest.parquet"]

    spec = f"{TOP}/spec.json"
    storage.write_bytes(spec, json.dumps(tiny_spec.replace({"optim.epochs": 4}).to_dict()).encode())
    train = ("timm:test_resnet-cutout", "--spec", spec, "--data", made["dataset"], "--storage", f"{TOP}/runs")
    train = (*train, "--name", "one", "--cpus", "1", "--checkpoint-every", "2")
    process = start("train", *train)
    process.wait_until(lambda: lines(f"{RUN}/metrics.csv") >= 1 + 1)
    os.kill(process.pid, signal.SIGKILL)
    process.finish()
    assert not storage.exists(f"{RUN}/model")
    trained = job("train", *train, "--resume")
    assert (trained["run"], trained["epochs"], trained["steps"]) == (RUN, 4, 16)
    assert lines(f"{RUN}/metrics.csv") == 1 + 4
    assert not [name for name in storage.names(RUN) if name.startswith("checkpoint_2")]
    assert {"model", "run.json", "metrics.csv", "curves.png", "curves.svg", "samples.png", "tensorboard"} <= set(
        storage.names(RUN)
    )

    evaluated = job("evaluate", RUN, "--data", made["dataset"], "--workers", "1")
    assert evaluated["report"] == f"{RUN}/model/evaluation/test/report.json"
    assert "report.html" in storage.names(f"{RUN}/model/evaluation/test")

    promoted = job("promote", RUN, "--to", f"{TOP}/models")
    assert promoted["live"] == f"{TOP}/models/{promoted['version']}"
    assert storage.read_bytes(f"{TOP}/models/live").decode().split() == [promoted["version"]]

    data = manifest.load(made["dataset"])
    image = storage.read_bytes(storage.join(data.root, data.split("test")["path"][0]))
    with served(f"{TOP}/models") as base:
        answer = httpx.get(f"{base}/v1/model", timeout=60)
        assert answer.json()["version"] == promoted["version"]
        answer = httpx.post(f"{base}/v1/detect", files={"file": ("face.jpg", image, "image/jpeg")}, timeout=60)
        assert answer.status_code == 200, answer.text
    assert [path.name for path in ray_with_store.glob("deepfake-detector-models-*/*/[!.]*")] == [promoted["version"]]


@contextmanager
def served(models: str) -> Iterator[str]:
    """The service on a free port until the ``with`` block ends; its base URL."""
    port = free_port()
    service = start("serve", "--models", models, "--port", str(port))
    try:
        service.wait_until(lambda: "Ctrl-C" in service.out)
        yield f"http://127.0.0.1:{port}"
    finally:
        service.terminate()
        service.finish()


@pytest.mark.parametrize(
    ("verb", "flags"),
    [
        ("prepare", [f"{TOP}/images", "--out", "{tmp}/data"]),
        ("train", ["timm:test_resnet", "--init", "none", "--data", f"{TOP}/data", "--storage", "{tmp}/runs"]),
        ("train", ["timm:test_resnet", "--init", "none", "--image-size", "32", "--data", "{data}", "--storage", TOP]),
        ("tune", ["timm:test_resnet", "--init", "none", "--image-size", "32", "--data", "{data}", "--storage", TOP]),
        ("promote", ["{tmp}/runs/one", "--to", f"{TOP}/models"]),
        ("promote", ["--list", "--to", f"{TOP}/models"]),
    ],
)
def test_a_job_says_in_one_line_that_the_store_is_down(
    verb: str,
    flags: list[str],
    tiny_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    use_server(monkeypatch, url)
    given = [flag.format(tmp=tmp_path, data=tiny_dataset) for flag in flags]
    started = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"jobs.{verb}").main(given)
    assert ended.value.code == 1
    assert time.monotonic() - started < 2 * object_stores.MAX_WAIT_S
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(f"error: {TOP} does not answer at {url} (")
    assert "Traceback" not in err


@pytest.mark.skipif(shutil.which("rclone") is None, reason="rclone is not installed (Debian: rclone)")
def test_rclone_copies_a_bucket_and_sees_a_difference(images: str) -> None:
    """As docs/operate.md backs a bucket up; the other commands of the page are run by tests/docs/test_backup.py."""
    variables = {"TYPE": "s3", "PROVIDER": "Other", "ENV_AUTH": "true", "ENDPOINT": os.environ["AWS_ENDPOINT_URL"]}
    env = os.environ | {f"RCLONE_CONFIG_STORE_{name}": value for name, value in variables.items()}
    env.pop("AWS_CA_BUNDLE", None)  # with it, rclone refuses every S3 store
    source, copy = images.replace("s3://", "store:"), f"store:{BUCKET}/backup"

    def rclone(*words: str) -> int:
        return subprocess.run(["rclone", *words, source, copy], env=env, capture_output=True).returncode

    assert rclone("sync", "--checksum") == 0
    assert rclone("check", "--download") == 0
    store, path = storage.locate(f"{TOP}/backup")
    first = next(file.path for file in store.get_file_info(fs.FileSelector(path, recursive=True)) if file.size)
    storage.write_bytes(f"s3://{first}", b"another")
    assert rclone("check", "--download") != 0
