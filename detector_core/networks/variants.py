"""The six variants of the paper's comparison, one row each (Table II), and any other timm network.

Source: paper sections III-B and III-F, Table II. The paper gives a batch of 1000 for its own network only; 64 for the
two pretrained ones is ours. "-cutout" at the end of a name gives the row its
cut-out; nothing else asks for it.
"""

import difflib
from dataclasses import dataclass
from typing import Any

from detector_core.config import AugmentSpec, ModelSpec, OptimSpec, PreprocessSpec, RunSpec
from detector_core.errors import UnknownVariant

CUTOUT_SUFFIX = "-cutout"
CUTOUT_PROBABILITY = 0.5
HALF = (0.5, 0.5, 0.5)
# facenet-pytorch feeds (x - 127.5) / 128, x in 0-255; the same for x in 0-1 reads:
FACENET_MEAN, FACENET_STD = (0.5, 0.5, 0.5), (128 / 255, 128 / 255, 128 / 255)
# Caffe-style VGGFace2 ResNet-50: BGR, mean subtracted, not divided; the same for x in 0-1 reads:
VGGFACE2_BGR_MEAN, VGGFACE2_BGR_STD = (91.4953 / 255, 103.8827 / 255, 131.0912 / 255), (1 / 255, 1 / 255, 1 / 255)


@dataclass(frozen=True, kw_only=True)
class _Network:
    """What the variants of one network share."""

    init: str
    batch_size: int
    preprocess: PreprocessSpec


_NETWORKS = {
    "inception_resnet_v2": _Network(
        init="hub", batch_size=64, preprocess=PreprocessSpec(image_size=299, mean=HALF, std=HALF)
    ),
    "vggface2": _Network(
        init="hub", batch_size=64, preprocess=PreprocessSpec(image_size=224, mean=FACENET_MEAN, std=FACENET_STD)
    ),
    "resnet68": _Network(init="none", batch_size=1000, preprocess=PreprocessSpec(image_size=224)),
    "vggface2_resnet50": _Network(
        init="none",
        batch_size=64,
        preprocess=PreprocessSpec(image_size=224, mean=VGGFACE2_BGR_MEAN, std=VGGFACE2_BGR_STD, channels="BGR"),
    ),
}
_TIMM = _Network(init="hub", batch_size=64, preprocess=PreprocessSpec(image_size=224))

# name: (network, learning rate, epochs) -- Table II
_TABLE_II = {
    "inception_resnet_v2": ("inception_resnet_v2", 0.001, 10),
    "inception_resnet_v2-cutout": ("inception_resnet_v2", 0.0001, 10),
    "vggface2": ("vggface2", 0.0002, 10),
    "vggface2-cutout": ("vggface2", 0.0001, 10),
    "resnet68": ("resnet68", 0.0001, 100),
    "resnet68-cutout": ("resnet68", 0.0001, 10),
}
VARIANTS = tuple(_TABLE_II)
"""The six names, in the order of Table II."""

_MORE = {
    "vggface2_resnet50": ("vggface2_resnet50", 0.0002, 10),
    "vggface2_resnet50-cutout": ("vggface2_resnet50", 0.0001, 10),
}
TIMM_PREFIX = "timm:"


def spec_for(variant: str, overrides: dict[str, Any] | None = None) -> RunSpec:
    """The default RunSpec of a variant, with dotted overrides (see :meth:`RunSpec.replace`).

    ``timm:NAME`` and ``timm:NAME-cutout`` train any network timm knows, with the preprocessing of its own weights.

    Raises:
        UnknownVariant: with the nearest name.
        BadConfig: an override that cannot work.
    """
    rows = _TABLE_II | _MORE
    cutout = variant.endswith(CUTOUT_SUFFIX)
    if variant in rows:
        architecture, learning_rate, epochs = rows[variant]
        network = _NETWORKS[architecture]
    elif variant.startswith(TIMM_PREFIX) and len(variant) > len(TIMM_PREFIX):
        architecture, learning_rate, epochs = variant.removesuffix(CUTOUT_SUFFIX), 0.0001, 10
        network = _TIMM
    else:
        near = difflib.get_close_matches(variant, rows, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UnknownVariant(
            f"no variant {variant!r}: {hint}The six of the paper are {', '.join(VARIANTS)}; "
            f"beside them {', '.join(_MORE)}; timm:NAME trains any network of timm"
        )
    model, preprocess = ModelSpec(architecture=architecture, init=network.init), network.preprocess
    if variant not in rows:
        from detector_core.networks.factory import (
            preprocess_for,  # imports every network: only where one of timm is asked for
        )

        preprocess = preprocess_for(model, preprocess)
    spec = RunSpec(
        variant=variant,
        model=model,
        preprocess=preprocess,
        augment=AugmentSpec(cutout=CUTOUT_PROBABILITY if cutout else 0.0),
        optim=OptimSpec(learning_rate=learning_rate, epochs=epochs, batch_size=network.batch_size),
    )
    return spec.replace(overrides) if overrides else spec
