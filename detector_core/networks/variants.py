"""Variants: a network with its learning rate, epochs and, if the name ends in ``-cutout``, cut-out augmentation.

The six variants of the paper's comparison are the rows of :data:`TABLE_II`; ``timm:NAME`` and ``timm:NAME-cutout``
train any network of timm. What else a run needs to know about a network is its row in
:mod:`detector_core.networks.catalog`.

Source: paper sections III-B and III-F, Table II.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from detector_core.config import AugmentSpec, ModelSpec, OptimSpec, RunSpec
from detector_core.errors import UnknownVariant, did_you_mean
from detector_core.networks.catalog import find_network
from detector_core.networks.timm_networks import TIMM_PREFIX

CUTOUT_SUFFIX = "-cutout"
CUTOUT_PROBABILITY = 0.5


@dataclass(frozen=True)
class Variant:
    """One row: a network of :mod:`detector_core.networks.catalog` and how it is trained.

    Attributes:
        changes: values by dotted field that differ from the defaults of :mod:`detector_core.config`.
    """

    architecture: str
    learning_rate: float
    epochs: int
    changes: Mapping[str, Any] = field(default_factory=dict)


TABLE_II = {
    "inception_resnet_v2": Variant("inception_resnet_v2", 0.001, 10),
    "inception_resnet_v2-cutout": Variant("inception_resnet_v2", 0.0001, 10),
    "vggface2": Variant("vggface2", 0.0002, 10),
    "vggface2-cutout": Variant("vggface2", 0.0001, 10),
    "resnet68": Variant("resnet68", 0.0001, 100),
    "resnet68-cutout": Variant("resnet68", 0.0001, 10),
}
VARIANTS = tuple(TABLE_II)
"""The names of the paper's six variants, in the order of Table II."""
MORE_VARIANTS = {
    "vggface2_resnet50": Variant("vggface2_resnet50", 0.0002, 10),
    "vggface2_resnet50-cutout": Variant("vggface2_resnet50", 0.0001, 10),
}

_DELIVERY = {"augment.delivery": 1.0, "augment.brightness": 0.0, "augment.contrast": 0.0}
_ADAMW = {
    "optim.optimizer": "adamw",
    "optim.schedule": "cosine",
    "optim.warmup_steps": 50,
    "optim.label_smoothing": 0.06,
}
_FINE_TUNED = (
    _ADAMW
    | _DELIVERY
    | {
        "model.dropout": 0.2,
        "augment.crop": 160,
        "augment.delivery": 0.6,
        "optim.micro_batch": 16,
        "optim.weight_decay": 0.05,
        "optim.head_learning_rate_factor": 3.0,
        "optim.ema": 0.99,
    }
)
_FROZEN = (
    _ADAMW
    | _DELIVERY
    | {
        "model.dropout": 0.5,
        "augment.versions": 1,
        "optim.micro_batch": 16,
        "optim.weight_decay": 0.1,
    }
)
RECIPES = {
    "lite0": Variant("lite0", 0.001, 14, _FINE_TUNED),
    "lite2": Variant("lite2", 0.001, 14, _FINE_TUNED),
    "lite0-frozen": Variant("lite0-frozen", 0.002, 40, _FROZEN),
    "lite2-frozen": Variant("lite2-frozen", 0.002, 40, _FROZEN),
    "lite-frozen": Variant("lite-frozen", 0.002, 40, _FROZEN),
    "lite-ensemble": Variant(
        "lite-ensemble", 0.001, 28, _FROZEN | _FINE_TUNED | {"model.dropout": 0.5, "augment.delivery": 0.8}
    ),
}
"""Recipes for a few thousand real faces without a GPU (docs/measured.md has those that were measured)."""


def spec_for(name: str, overrides: dict[str, Any] | None = None) -> RunSpec:
    """The default RunSpec of a variant.

    Args:
        overrides: values by dotted field, e.g. ``{"optim.epochs": 3}`` (see :meth:`RunSpec.replace`).

    Raises:
        UnknownVariant: there is no such variant; the message suggests the closest name.
        BadConfig: an override names no field, or its value is not allowed.
    """
    variant = _find_variant(name)
    network = find_network(variant.architecture)
    spec = RunSpec(
        variant=name,
        model=ModelSpec(architecture=variant.architecture, init=network.init),
        preprocess=network.preprocess,
        augment=AugmentSpec(cutout=CUTOUT_PROBABILITY if name.endswith(CUTOUT_SUFFIX) else 0.0),
        optim=OptimSpec(learning_rate=variant.learning_rate, epochs=variant.epochs, batch_size=network.batch_size),
    )
    return spec.replace({**variant.changes, **(overrides or {})})


def _find_variant(name: str) -> Variant:
    rows = TABLE_II | RECIPES | MORE_VARIANTS
    if name in rows:
        return rows[name]
    if name.startswith(TIMM_PREFIX) and name != TIMM_PREFIX:
        return Variant(name.removesuffix(CUTOUT_SUFFIX), learning_rate=0.0001, epochs=10)
    raise UnknownVariant(
        f"no variant {name!r}: {did_you_mean(name, rows)}The paper's six are {', '.join(VARIANTS)}; "
        f"there are also {', '.join([*RECIPES, *MORE_VARIANTS])}; timm:NAME trains any network of timm"
    )
