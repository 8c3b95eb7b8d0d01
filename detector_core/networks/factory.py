"""Builds the network of a spec, and checks the sizes of its images before a run starts.

Not in this module: which networks there are (:mod:`detector_core.networks.catalog`), and where the weights of a trained
model are stored (:mod:`detector_core.networks.artifacts`).
"""

import torch
from torch import nn

from detector_core.config import ModelSpec, RunSpec
from detector_core.errors import BadConfig, WeightsUnavailable, first_line
from detector_core.networks import weights
from detector_core.networks.catalog import find_network


def build(spec: ModelSpec, *, pretrained: bool = True) -> nn.Module:
    """Builds the network of a spec, in training mode: x_BCHW float32 -> logit_B1 of *fake*.

    ``spec.init`` is ``package`` (weights that an installed package ships), ``hub`` (the published weights, downloaded
    once), ``none`` (random weights), or the path or URI of a weights file (see
    :func:`detector_core.networks.weights.load_file`).

    Args:
        pretrained: False ignores ``spec.init`` and leaves the weights random, for trained weights to be loaded next.

    Raises:
        UnknownVariant: there is no such network; the message suggests the closest name.
        WeightsUnavailable: the weights are missing or do not fit; the message says what to fetch.
    """
    network = find_network(spec.architecture)
    if not pretrained or spec.init == "none":
        return network.create(spec)
    if spec.init == "package":
        if network.create_packaged is None:
            raise WeightsUnavailable(
                f"no package ships weights of {spec.architecture}: start with --init hub, FILE or none"
            )
        return network.create_packaged(spec)
    if spec.init == "hub":
        if network.create_pretrained is None:
            raise WeightsUnavailable(
                f"the weights of {spec.architecture} cannot be downloaded automatically: {network.no_pretrained_hint}"
            )
        return network.create_pretrained(spec)
    model = network.create(spec)
    weights.load_file(model, spec.init, network.heads)
    return model


def check(spec: RunSpec) -> None:
    """Checks that a run's network takes its images, its crops and its dropout.

    Raises:
        UnknownVariant: there is no such network.
        BadConfig: it does not; names the field.
    """
    size, crop, dropout = spec.preprocess.image_size, spec.augment.crop, spec.model.dropout
    check_image_size(spec.model, size)
    if crop > size:
        raise BadConfig(f"augment.crop is {crop}: it must be at most the image size, {size}, or 0 for no crops")
    if crop:
        check_image_size(spec.model, crop, "augment.crop")
    if dropout and not find_network(spec.model.architecture).dropout:
        raise BadConfig(f"model.dropout is {dropout}, but {spec.model.architecture} takes none: set it to 0")


def check_image_size(spec: ModelSpec, image_size: int, name: str = "image size") -> None:
    """Checks that a network accepts square images of ``image_size`` pixels and returns one logit.

    Runs one forward pass on the meta device, which computes shapes without values and takes about a second.

    Args:
        name: of the size, for errors.

    Raises:
        UnknownVariant: there is no such network.
        BadConfig: the image is too small, or not the one size that the network accepts, or the network does not
            return a single logit.
    """
    network = find_network(spec.architecture)
    if image_size < network.smallest_image:
        raise BadConfig(f"{name} {image_size} is too small for {spec.architecture}: it needs {network.smallest_image}")
    try:
        with torch.device("meta"), torch.inference_mode():
            logit = network.create(spec).eval()(torch.zeros(1, 3, image_size, image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise BadConfig(
            f"{spec.architecture} does not accept images of {image_size} pixels: {first_line(error)}"
        ) from None
    if not isinstance(logit, torch.Tensor) or logit.shape != (1, 1):
        raise BadConfig(f"{spec.architecture} does not return a single logit: it is not a classification network")
