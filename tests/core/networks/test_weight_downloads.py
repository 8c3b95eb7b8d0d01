"""detector_core.networks.weights: what is downloaded, complete or not at all, and what is said without a network."""

import http.server
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub.constants
import pytest
import safetensors.torch
import torch

from detector_core.config import ModelSpec
from detector_core.errors import WeightsUnavailable
from detector_core.networks import weights
from detector_core.networks.factory import build
from tests.support.weights import assert_loaded, state_of


def no_network(url: str, timeout: float) -> NoReturn:
    assert timeout <= 10
    raise urllib.error.URLError(OSError(f"Name or service not known: {url}"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network, and caches that are empty."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    return tmp_path


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("inception_resnet_v2", ("model.safetensors", "huggingface.co/timm/inception_resnet_v2.tf_in1k")),
        ("timm:resnet18", ("model.safetensors", "huggingface.co/timm/resnet18.a1_in1k")),
        ("timm:legacy_senet154", ("http", "senet154", "checkpoints")),
        ("vggface2", ("20180402-114759-vggface2.pt", "checkpoints")),
        ("vggface2_resnet50", ("resnet50_ft_weight.pkl", "cydonia999/VGGFace2-pytorch")),
    ],
)
def test_without_a_network_the_error_comes_at_once_and_says_what_to_download(
    architecture: str, names: tuple[str, ...], offline: Path
) -> None:
    del offline
    start = time.monotonic()
    with pytest.raises(WeightsUnavailable) as error:
        build(ModelSpec(architecture=architecture, init="hub"))
    assert time.monotonic() - start < 5
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in (*names, "--init FILE", "--init none"))


def test_a_refused_connection_is_not_retried(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del offline
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(WeightsUnavailable, match="cannot be downloaded"):
        weights.from_hub("timm/resnet18.a1_in1k", ["model.safetensors", "pytorch_model.bin"])
    assert time.monotonic() - start < 5


def test_a_cached_timm_file_is_used_without_a_network(offline: Path) -> None:
    state, _ = state_of("timm:resnet18", 1000)
    repository = offline / "hf" / "models--timm--resnet18.a1_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    cached = repository / "snapshots" / ("0" * 40) / "model.safetensors"
    safetensors.torch.save_file(state, cached)
    assert_loaded(build(ModelSpec(architecture="timm:resnet18", init="hub")), state, but="fc.")
    cached.write_bytes(cached.read_bytes()[:1000])
    with pytest.raises(WeightsUnavailable, match="delete it to download it again"):
        build(ModelSpec(architecture="timm:resnet18", init="hub"))


def test_a_lite_network_with_downloaded_weights_has_the_dropout_and_last_layer_of_a_packaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, _ = state_of("timm:tf_efficientnet_lite0", 1000)
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    monkeypatch.setattr(weights, "from_hub", lambda *_: tmp_path / "model.safetensors")
    model: Any = build(ModelSpec(architecture="lite0", init="hub", dropout=0.2))
    assert_loaded(model, state, but="classifier.")
    assert model.drop_rate == 0.2
    assert model.classifier.weight.abs().max() <= model.classifier.in_features**-0.5


def test_a_cached_vggface2_file_is_used_without_a_network(offline: Path) -> None:
    state, _ = state_of("vggface2", 8631)
    cached = offline / "torch" / "checkpoints" / "20180402-114759-vggface2.pt"
    cached.parent.mkdir(parents=True)
    torch.save(state, cached)
    assert_loaded(build(ModelSpec(architecture="vggface2", init="hub")), state, but="logits.")


@pytest.mark.parametrize("published", [["pytorch_model.bin"], ["model.safetensors", "pytorch_model.bin"], []])
def test_the_first_file_that_a_repository_has_is_downloaded(
    published: list[str], offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, requests = ["model.safetensors", "pytorch_model.bin"], []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            name = Path(self.path).name
            requests.append((self.command, self.path))
            self.send_response(200 if name in published else 404)
            headers = {"X-Repo-Commit": "0" * 40, "ETag": f'"{name}"', "Content-Length": str(len(name))}
            for header, value in (headers if name in published else {"X-Error-Code": "EntryNotFound"}).items():
                self.send_header(header, value)
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(Path(self.path).name.encode())

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        monkeypatch.setattr(
            huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        try:
            if published:
                path = weights.from_hub("timm/tiny", names)
                assert (path.name, path.read_text()) == (published[0], published[0])
                assert path.is_relative_to(offline / "hf")
                requests.clear()
                assert weights.from_hub("timm/tiny", names) == path
                assert requests == []  # it is in the cache now
            else:
                with pytest.raises(
                    WeightsUnavailable,
                    match=r"timm/tiny on Hugging Face has no file model\.safetensors or pytorch_model\.bin: .*--init",
                ):
                    weights.from_hub("timm/tiny", names)
                assert [Path(path).name for _, path in requests] == names
        finally:
            server.shutdown()
            thread.join()


"""Patterns of timm's names of the layers of a ConvNeXt, and the names under which it was published."""


@pytest.mark.parametrize("complete", [True, False])
def test_an_incomplete_download_leaves_no_file(complete: bool, tmp_path: Path) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"w" * (1000 if complete else 400))

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/weights.pt"
        if complete:
            assert weights.from_url(url, tmp_path).read_bytes() == b"w" * 1000
            assert weights.from_url(url, tmp_path) == tmp_path / "weights.pt"  # the server answers only once
        else:
            with pytest.raises(WeightsUnavailable, match="the connection broke after 400 of 1000 bytes"):
                weights.from_url(url, tmp_path)
            assert list(tmp_path.iterdir()) == []
        thread.join()
