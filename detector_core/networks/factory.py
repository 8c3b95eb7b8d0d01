"""The networks by name; each takes x_BCHW float32 and gives logit_B1 of *fake*.

``resnet68``
    The paper's own (:mod:`detector_core.networks.resnet68`).
``inception_resnet_v2``
    timm's, pretrained on ImageNet.
``vggface2``
    facenet-pytorch's Inception-ResNet-v1, pretrained on VGGFace2, with a linear layer on its 512-D embedding. A
    deviation: the paper's is a ResNet-50 trained on the same faces, whose weights have no maintained source.
``vggface2_resnet50``
    That ResNet-50, for whoever holds its weights: ``resnet50_ft_weight.pkl`` or ``resnet50_scratch_weight.pkl`` of
    github.com/cydonia999/VGGFace2-pytorch, or any state dict with torchvision's names. As in Caffe, the stride sits on
    the first 1x1 convolution of a block and the first pooling rounds up without padding. It wants BGR images.
``timm:NAME``
    Any classifying network of timm. Networks with a fixed input (ViT, Swin...) take images of that one size.

timm and facenet-pytorch are imported where they are used: with torchvision they take seconds, which a process that
only needs ``resnet68`` should not wait for.

Left out: where the weights of a trained model are stored (:mod:`detector_core.networks.artifacts`).
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from detector_core.config import INTERPOLATIONS, ModelSpec, PreprocessSpec
from detector_core.errors import BadConfig, NoWeights, UnknownVariant, first_line
from detector_core.networks import weights
from detector_core.networks.resnet68 import SMALLEST_IMAGE, resnet68
from detector_core.networks.variants import TIMM_PREFIX

FACENET_URL = (
    "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt"  # 107 MB
)


def _timm(name: str) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(name, num_classes=1)
    return model


def _vggface2() -> nn.Module:
    from facenet_pytorch import InceptionResnetV1

    model: nn.Module = InceptionResnetV1(classify=True, num_classes=1)
    return model


def _vggface2_resnet50() -> nn.Module:
    from timm.models.resnet import Bottleneck, ResNet

    model: Any = ResNet(Bottleneck, (3, 4, 6, 3), num_classes=1)  # type: ignore[arg-type]  # timm names the instance type
    model.maxpool = nn.MaxPool2d(3, stride=2, padding=0, ceil_mode=True)
    for stage in (model.layer2, model.layer3, model.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    network: nn.Module = model
    return network


@dataclass(frozen=True, kw_only=True)
class _Network:
    """What has to be known of a network.

    Attributes:
        make: builds it with random weights.
        heads: names of its classifying layers, which ``--init FILE`` may leave as they are.
        smallest: least side of its input, pixels.
        from_hub: builds it with the published weights; None where there are none.
        missing: what to do where there are none.
    """

    make: Callable[[ModelSpec], nn.Module]
    heads: tuple[str, ...]
    smallest: int
    from_hub: Callable[[], nn.Module] | None = None
    missing: str = "start with --init FILE or --init none"


_NETWORKS = {
    "resnet68": _Network(make=lambda spec: resnet68(spec.layout), heads=("fc",), smallest=SMALLEST_IMAGE),
    "inception_resnet_v2": _Network(
        make=lambda _: _timm("inception_resnet_v2"),
        heads=("classif",),
        smallest=75,
        from_hub=lambda: _pretrained_timm("inception_resnet_v2"),
    ),
    "vggface2": _Network(
        make=lambda _: _vggface2(),
        heads=("logits",),
        smallest=75,
        from_hub=lambda: _pretrained_vggface2(),
    ),
    "vggface2_resnet50": _Network(
        make=lambda _: _vggface2_resnet50(),
        heads=("fc",),
        smallest=SMALLEST_IMAGE,
        missing=(
            "fetch resnet50_ft_weight.pkl, linked from https://github.com/cydonia999/VGGFace2-pytorch, "
            + weights.OTHER_WAYS
        ),
    ),
}
ARCHITECTURES = tuple(_NETWORKS)
"""The networks known by a name of their own; ``timm:NAME`` comes on top."""


def build(spec: ModelSpec, *, pretrained: bool = True) -> nn.Module:
    """The network of a spec in training mode: x_BCHW float32 -> logit_B1 of *fake*.

    ``pretrained=False`` gives random weights whatever ``spec.init`` says, for trained weights to follow. Otherwise
    ``spec.init`` is ``hub`` (the published weights, downloaded once), ``none``, or a weights file or URI: see
    :func:`detector_core.networks.weights.load_file`.

    Raises:
        UnknownVariant: no such network; names the nearest one.
        NoWeights: the weights cannot be had or do not fit; says what to fetch.
    """
    network = _network(spec)
    if not pretrained or spec.init == "none":
        return network.make(spec)
    if spec.init == "hub":
        if network.from_hub is None:
            raise NoWeights(f"{spec.architecture} has no weights on a hub: {network.missing}")
        return network.from_hub()
    model = network.make(spec)
    weights.load_file(model, spec.init, network.heads)
    return model


def smallest_image(spec: ModelSpec) -> int:
    """Least side of an image, pixels; for ``timm:NAME`` the fixed size of its input, or 1 where only trying tells.

    Raises:
        UnknownVariant: no such network.
    """
    return _network(spec).smallest


def check_image_size(spec: ModelSpec, image_size: int) -> None:
    """Refuses an image that the network cannot take.

    It is tried: one forward pass of shapes without numbers, a second or so.

    Raises:
        UnknownVariant: no such network.
        BadConfig: too small, not the one size that the network takes, or a network without a single logit.
    """
    network = _network(spec)
    if image_size < network.smallest:
        raise BadConfig(f"image size {image_size} is too small for {spec.architecture}: it needs {network.smallest}")
    try:
        with torch.device("meta"), torch.inference_mode():
            logit = network.make(spec).eval()(torch.zeros(1, 3, image_size, image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise BadConfig(f"{spec.architecture} cannot take an image size of {image_size}: {first_line(error)}") from None
    if not isinstance(logit, torch.Tensor) or logit.shape != (1, 1):
        raise BadConfig(f"{spec.architecture} gives no single logit: it is not a classifying network")


def preprocess_for(spec: ModelSpec, default: PreprocessSpec) -> PreprocessSpec:
    """``default``, or for ``timm:NAME`` what its pretrained weights were trained on: size, mean, std, interpolation.

    Raises:
        UnknownVariant: timm has no such network.
    """
    if not spec.architecture.startswith(TIMM_PREFIX):
        return default
    config = _timm_config(spec.architecture.removeprefix(TIMM_PREFIX))
    return replace(
        default,
        image_size=config.input_size[-1],
        mean=tuple(config.mean),
        std=tuple(config.std),
        interpolation=config.interpolation if config.interpolation in INTERPOLATIONS else default.interpolation,
    )


def _network(spec: ModelSpec) -> _Network:
    if spec.architecture in _NETWORKS:
        return _NETWORKS[spec.architecture]
    if not spec.architecture.startswith(TIMM_PREFIX):
        near = difflib.get_close_matches(spec.architecture, ARCHITECTURES, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UnknownVariant(
            f"no network {spec.architecture!r}: {hint}There are {', '.join(ARCHITECTURES)} and timm:NAME"
        )
    name = spec.architecture.removeprefix(TIMM_PREFIX)
    config = _timm_config(name)
    heads = config.classifier or ()
    return _Network(
        make=lambda _: _timm(name),
        heads=(heads,) if isinstance(heads, str) else tuple(heads),
        smallest=config.input_size[-1] if config.fixed_input_size else 1,
        from_hub=lambda: _pretrained_timm(name),
    )


def _timm_config(name: str) -> Any:
    """timm's record of a network's pretrained weights. Raises UnknownVariant."""
    import timm

    if not timm.is_model(name):
        names = timm.list_models()
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
        hint = f"did you mean timm:{near[0]}? " if near else ""
        raise UnknownVariant(f"timm has no network {name!r}: {hint}timm.list_models() lists all {len(names)}")
    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:  # NAME.TAG with a tag that does not exist
        raise UnknownVariant(f"timm has no network {name!r}: {error}") from None


def _pretrained_vggface2() -> nn.Module:
    from facenet_pytorch.models.inception_resnet_v1 import get_torch_home

    model = _vggface2()
    # Where facenet-pytorch itself keeps the file.
    weights.load_file(model, weights.from_url(FACENET_URL, Path(get_torch_home()) / "checkpoints"), ("logits",))
    return model


def _pretrained_timm(name: str) -> nn.Module:
    """A network of timm with the weights that timm names for it. Raises NoWeights."""
    import timm

    config = _timm_config(name)
    if config.hf_hub_id:
        given = config.hf_hub_filename or "pytorch_model.bin"
        safe = "model.safetensors" if given == "pytorch_model.bin" else str(Path(given).with_suffix(".safetensors"))
        path = weights.from_hub(config.hf_hub_id, dict.fromkeys((safe, given)))
    elif config.url:
        path = weights.from_url(config.url, Path(torch.hub.get_dir()) / "checkpoints")
    else:
        raise NoWeights(f"timm has no pretrained weights for {name}: start with --init FILE or --init none")
    try:
        # timm knows how older files of its own are renamed and which layers classify.
        model: nn.Module = timm.create_model(
            name, pretrained=True, num_classes=1, pretrained_cfg_overlay={"file": str(path)}
        )
    except (RuntimeError, SafetensorError) as error:
        raise NoWeights(
            f"{path} does not hold the weights of {name} ({first_line(error)}): delete it to fetch it again"
        ) from None
    return model
