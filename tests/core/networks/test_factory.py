"""detector_core.networks.factory and catalog: every network of the table can be built, fed and trained."""

from typing import Any

import pytest
import torch
from torch import nn

from detector_core.config import ModelSpec, PreprocessSpec
from detector_core.errors import BadConfig, UnknownVariant, WeightsUnavailable
from detector_core.networks.catalog import NETWORKS, Network, find_network
from detector_core.networks.factory import build, check, check_image_size
from detector_core.networks.variants import MORE_VARIANTS, RECIPES, TABLE_II, spec_for

SIDE = {name: row.smallest_image for name, row in NETWORKS.items()} | {"timm:resnet18": 32}


@pytest.fixture(scope="module", params=SIDE)
def network(request: pytest.FixtureRequest) -> tuple[ModelSpec, nn.Module]:
    spec = ModelSpec(architecture=request.param, init="hub")
    return spec, build(spec, pretrained=False)


def test_every_network_returns_one_logit_per_image_at_its_smallest_size(network: tuple[ModelSpec, nn.Module]) -> None:
    spec, model = network
    side = SIDE[spec.architecture]
    check_image_size(spec, side)
    with torch.inference_mode():
        logit = model.eval()(torch.rand(2, 3, side, side))
    assert logit.shape == (2, 1)
    assert logit.dtype == torch.float32
    assert logit.isfinite().all()


def test_every_parameter_gets_a_gradient(network: tuple[ModelSpec, nn.Module]) -> None:
    """DistributedDataParallel would wait forever for a parameter that gets none."""
    spec, model = network
    side = SIDE[spec.architecture] + 24
    model.train()(torch.rand(2, 3, side, side)).sum().backward()
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    unused = [name for name, parameter in trained if parameter.grad is None]
    model.zero_grad(set_to_none=True)
    assert unused == []


def test_the_heads_of_a_network_are_layers_of_it(network: tuple[ModelSpec, nn.Module]) -> None:
    spec, model = network
    heads = find_network(spec.architecture).heads
    assert heads
    assert set(heads) <= {name for name, _ in model.named_modules()}


def test_every_variant_has_a_network_and_every_network_a_variant() -> None:
    assert {variant.architecture for variant in (TABLE_II | RECIPES | MORE_VARIANTS).values()} == set(NETWORKS)


def test_a_network_without_a_single_logit_is_refused_before_a_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def flat(_: ModelSpec) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 1), nn.Flatten(0))

    network = Network(create=flat, heads=("1",), smallest_image=32, preprocess=PreprocessSpec(image_size=32))
    monkeypatch.setitem(NETWORKS, "flat", network)
    with pytest.raises(BadConfig, match="flat does not return a single logit"):
        check_image_size(ModelSpec(architecture="flat"), 32)
    with pytest.raises(BadConfig, match="flat does not accept images of 40 pixels"):
        check_image_size(ModelSpec(architecture="flat"), 40)


def test_the_layout_of_the_spec_reaches_resnet68() -> None:
    model = build(ModelSpec(architecture="resnet68", layout=(1, 2, 1, 3)))
    assert [len(stage) for stage in (model.layer1, model.layer2, model.layer3, model.layer4)] == [1, 2, 1, 3]


def test_vggface2_resnet50_has_the_strides_of_caffe() -> None:
    """The published conversion has planes of 224, 112, 56, 28, 14 and 7 pixels, and conv1 of a block halves them."""
    with torch.device("meta"):
        model = build(ModelSpec(architecture="vggface2_resnet50"))
        x_BCHW = model.maxpool(model.conv1(torch.zeros(1, 3, 224, 224)))
    assert x_BCHW.shape == (1, 64, 56, 56)
    for stage in (model.layer2, model.layer3, model.layer4):
        assert stage[0].conv1.stride == (2, 2)
        assert stage[0].conv2.stride == (1, 1)
        assert stage[0].downsample[0].stride == (2, 2)
    names = set(model.state_dict())
    assert {"conv1.weight", "layer1.0.conv1.weight", "layer4.0.downsample.1.running_var", "fc.bias"} <= names


@pytest.mark.parametrize("name", NETWORKS)
def test_an_image_that_is_too_small_is_refused(name: str) -> None:
    spec = ModelSpec(architecture=name)
    side = NETWORKS[name].smallest_image
    with pytest.raises(BadConfig, match=f"image size {side - 1} is too small for {name}: it needs {side}"):
        check_image_size(spec, side - 1)


@pytest.mark.parametrize(
    ("variant", "changes", "message"),
    [
        ("lite0", {"preprocess.image_size": 128}, "augment.crop is 160: it must be at most the image size, 128, or 0"),
        ("lite-ensemble", {"augment.crop": 1}, "augment.crop 1 is too small for lite-ensemble: it needs 32"),
        ("resnet68", {"model.dropout": 0.2}, "model.dropout is 0.2, but resnet68 takes none: set it to 0"),
    ],
)
def test_a_run_that_its_network_cannot_take_is_refused(variant: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        check(spec_for(variant, changes))


@pytest.mark.parametrize("name", [*TABLE_II, *MORE_VARIANTS, *RECIPES])
def test_a_network_takes_what_its_variant_says(name: str) -> None:
    check(spec_for(name))


@pytest.mark.parametrize("name", ["inception_resnet_v2", "vggface2"])
def test_below_its_smallest_size_a_network_really_fails(name: str) -> None:
    with torch.device("meta"):
        model = build(ModelSpec(architecture=name), pretrained=False).eval()
        with pytest.raises(RuntimeError, match="Kernel size"):
            model(torch.zeros(1, 3, SIDE[name] - 1, SIDE[name] - 1))


@pytest.mark.parametrize(
    ("name", "side"), [("vgg11", 16), ("vit_tiny_patch16_224", 128), ("vit_tiny_patch16_224", 256)]
)
def test_the_image_size_of_a_timm_network_is_checked_by_a_forward_pass(name: str, side: int) -> None:
    spec = ModelSpec(architecture=f"timm:{name}")
    with pytest.raises(BadConfig, match=f"timm:{name}"):
        check_image_size(spec, side)
    check_image_size(spec, 224)


def test_the_error_for_an_unknown_network_suggests_the_closest_name() -> None:
    with pytest.raises(UnknownVariant, match="did you mean vggface2\\?"):
        build(ModelSpec(architecture="vggface"))
    with pytest.raises(UnknownVariant, match="did you mean timm:densenet121\\?"):
        build(ModelSpec(architecture="timm:densenet12l"))
    with pytest.raises(UnknownVariant, match=r"resnet18\.nonsense"):
        build(ModelSpec(architecture="timm:resnet18.nonsense"))


def test_the_error_for_a_timm_network_without_pretrained_weights_says_what_to_do() -> None:
    spec = ModelSpec(architecture="timm:ghostnet_050", init="hub")
    with pytest.raises(WeightsUnavailable, match=r"timm has no pretrained weights for ghostnet_050: .*--init none"):
        build(spec)


def test_the_error_for_a_network_without_a_package_says_what_to_do() -> None:
    with pytest.raises(WeightsUnavailable, match=r"no package ships weights of resnet68: start with --init hub, FILE"):
        build(ModelSpec(architecture="resnet68", init="package"))
