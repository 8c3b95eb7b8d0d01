"""Variants: a network with its learning rate, epochs and, if the name ends in ``-cutout``, cut-out augmentation.

The six variants of the paper's comparison are the rows of :data:`TABLE_II`; ``timm:NAME`` and ``timm:NAME-cutout``
train any network of timm. What else a run needs to know about a network is its row in
:mod:`detector_core.networks.catalog`.

Source: paper sections III-B and III-F, Table II.
"""

from typing import Any, NamedTuple

from detector_core.config import AugmentSpec, ModelSpec, OptimSpec, RunSpec
from detector_core.errors import UnknownVariant
from detector_core.networks.catalog import TIMM_PREFIX, did_you_mean, find_network

CUTOUT_SUFFIX = "-cutout"
CUTOUT_PROBABILITY = 0.5


class Variant(NamedTuple):
    """One row: a network of :mod:`detector_core.networks.catalog` and how it is trained."""

    architecture: str
    learning_rate: float
    epochs: int


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
    return spec.replace(overrides) if overrides else spec


def _find_variant(name: str) -> Variant:
    rows = TABLE_II | MORE_VARIANTS
    if name in rows:
        return rows[name]
    if name.startswith(TIMM_PREFIX) and name != TIMM_PREFIX:
        return Variant(name.removesuffix(CUTOUT_SUFFIX), learning_rate=0.0001, epochs=10)
    raise UnknownVariant(
        f"no variant {name!r}: {did_you_mean(name, rows)}The paper's six are {', '.join(VARIANTS)}; "
        f"there are also {', '.join(MORE_VARIANTS)}; timm:NAME trains any network of timm"
    )
