"""detector_core.networks.weights: published files load, and other files are refused."""

import functools
import pickle
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

from detector_core.config import ModelSpec
from detector_core.errors import WeightsUnavailable
from detector_core.networks import weights
from detector_core.networks.factory import build
from tests.support.weights import HEADS, TINY, assert_loaded, state_of


@pytest.mark.parametrize("architecture", [*HEADS, "resnet68"])
def test_a_file_with_another_number_of_classes_loads_except_for_its_head(architecture: str, tmp_path: Path) -> None:
    state, head = state_of(architecture, 7)
    torch.save(state, tmp_path / "weights.pt")
    model = build(ModelSpec(architecture=architecture, init=str(tmp_path / "weights.pt"), **TINY))
    assert_loaded(model, state, but=f"{head}.")
    assert model.get_submodule(head).weight.shape[0] == 1


def test_a_model_of_this_project_loads_with_its_head(tmp_path: Path) -> None:
    state, _ = state_of("resnet68", 1)
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    assert_loaded(build(ModelSpec(architecture="resnet68", init=str(tmp_path / "model.safetensors"), **TINY)), state)


def test_the_wrapper_and_prefix_of_a_ddp_checkpoint_are_removed(tmp_path: Path) -> None:
    state, _ = state_of("resnet68", 1)
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "last.pth.tar")
    assert_loaded(build(ModelSpec(architecture="resnet68", init=str(tmp_path / "last.pth.tar"), **TINY)), state)


def test_the_published_vggface2_resnet50_format_loads(tmp_path: Path) -> None:
    """A pickled dict of numpy arrays without BatchNorm's counters and with 7 classes (8,631 in the published file)."""
    state, _ = state_of("vggface2_resnet50", 7)
    arrays = {k: v.numpy() for k, v in state.items() if not k.endswith("num_batches_tracked")}
    (tmp_path / "resnet50_ft_weight.pkl").write_bytes(pickle.dumps(arrays, protocol=2))
    spec = ModelSpec(architecture="vggface2_resnet50", init=str(tmp_path / "resnet50_ft_weight.pkl"))
    assert_loaded(build(spec), state, but="fc.")


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(tmp_path / "ran"),)  # type: ignore[return-value]

    for name in ("evil.pkl", "evil.pt"):
        (tmp_path / name).write_bytes(pickle.dumps({"conv1.weight": Evil()}, protocol=2))
        with pytest.raises(WeightsUnavailable, match=name):
            weights.read(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_the_first_tensor_that_does_not_fit_is_named(tmp_path: Path) -> None:
    state, _ = state_of("resnet68", 1)
    cases = {
        "it has no layer2.0.conv2.weight": {k: v for k, v in state.items() if k != "layer2.0.conv2.weight"},
        "the shape of layer1.0.bn1.bias is \\[5\\] instead of \\[64\\]": {**state, "layer1.0.bn1.bias": torch.zeros(5)},
        "it has layer1.1.conv1.weight, which": {**state, "layer1.1.conv1.weight": torch.zeros(5)},
    }
    for message, changed in cases.items():
        torch.save(changed, tmp_path / "w.pt")
        with pytest.raises(WeightsUnavailable, match=message) as error:
            build(ModelSpec(architecture="resnet68", init=str(tmp_path / "w.pt"), **TINY))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.pt", b"", "cannot be read as weights"),
        ("x.pt", b"not weights", "cannot be read as weights"),
        ("x.pkl", b"not weights", "cannot be read as weights"),
        ("x.pkl", pickle.dumps([1, 2]), "holds no state dict"),
        ("x.safetensors", b"\x08", "not a complete safetensors file"),
    ],
)
def test_a_file_without_weights_is_refused_in_one_line(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WeightsUnavailable, match=message) as error:
        weights.read(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.rand(1000)}, tmp_path / "complete.pt")
    (tmp_path / "truncated.pt").write_bytes((tmp_path / "complete.pt").read_bytes()[:2000])
    with pytest.raises(WeightsUnavailable, match=r"truncated\.pt cannot be read as weights"):
        weights.read(tmp_path / "truncated.pt")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match=r"there is no file .*gone\.pt"):
        build(ModelSpec(architecture="resnet68", init=str(tmp_path / "gone.pt"), **TINY))
    with pytest.raises(WeightsUnavailable, match="cannot be read"):
        build(ModelSpec(architecture="resnet68", init=str(tmp_path), **TINY))


OLDER = (
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
    ("conv_dw", "dwconv"),
    (r"mlp\.fc", "pwconv"),
    (r"^head\.norm", "norm"),
    (r"^head\.fc", "head"),
)


def test_a_timm_network_loads_under_the_names_of_its_publication(tmp_path: Path) -> None:
    architecture = "timm:test_convnext"
    state = build(ModelSpec(architecture=architecture), pretrained=False).state_dict()
    older = {functools.reduce(lambda key, pair: re.sub(*pair, key), OLDER, key): value for key, value in state.items()}
    assert not set(older) & set(state)
    torch.save(older, tmp_path / "older.pth")
    assert_loaded(build(ModelSpec(architecture=architecture, init=str(tmp_path / "older.pth"))), state)
    torch.save(state_of("resnet68", 1)[0] | {"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsUnavailable, match=r"other\.pth does not fit the network: it has no stem\.0\.weight"):
        build(ModelSpec(architecture=architecture, init=str(tmp_path / "other.pth")))
