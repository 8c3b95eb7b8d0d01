"""Freezes a network up to a stage: initial weights and BatchNorm statistics stay as they are."""

from torch import nn

from detector_core.errors import BadConfig
from detector_core.networks.frozen import FrozenNetwork


def freeze(network: nn.Module, stage: str) -> list[nn.Module]:
    """Freezes the parameters of a stage and of every part before it, in the order in which the network lists them.

    Args:
        stage: the name of a part of the network with parameters, such as ``layer2``; empty freezes nothing.

    Returns:
        The frozen BatchNorm layers, which have to be in evaluation mode whenever the network is trained.

    Raises:
        BadConfig: there is no such stage, nothing would be left to train, or the network has frozen backbones.
    """
    if not stage:
        return []
    if isinstance(network, FrozenNetwork):
        raise BadConfig(
            f"--freeze {stage}: the backbones of this network are frozen already; train it without --freeze"
        )
    parameters = list(network.named_parameters())
    inside = [index for index, (name, _) in enumerate(parameters) if name.startswith(f"{stage}.")]
    if not inside:
        raise BadConfig(
            f"--freeze {stage}: the network has no such stage; its stages are {', '.join(_stages(network))}"
        )
    for _, parameter in parameters[: inside[-1] + 1]:
        parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise BadConfig(f"--freeze {stage}: nothing would be left to train; stages are {', '.join(_stages(network))}")
    return [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and not any(parameter.requires_grad for parameter in module.parameters(recurse=False))
    ]


def _stages(network: nn.Module) -> list[str]:
    """The parts that have parameters, in order; of a list of parts, its name with those of its elements."""
    names = []
    for name, child in network.named_children():
        parts = [key for key, part in child.named_children() if key.isdigit() and _has_parameters(part)]
        if _has_parameters(child):
            names.append(f"{name} (.{parts[0]} to .{parts[-1]})" if len(parts) > 1 else name)
    return names


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
