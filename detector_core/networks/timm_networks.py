"""Networks of timm by name: built with one logit, with random or with their published weights.

timm is imported in the functions, because importing it takes seconds that processes without its networks should save.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from detector_core.config import ModelSpec
from detector_core.errors import UnknownVariant, WeightsUnavailable, did_you_mean, first_line
from detector_core.networks import weights

TIMM_PREFIX = "timm:"


def create(name: str, _: ModelSpec) -> nn.Module:
    """Builds a network of timm with random weights."""
    import timm

    model: nn.Module = timm.create_model(name, num_classes=1)
    return model


def create_pretrained(name: str, _: ModelSpec) -> nn.Module:
    """Builds a network of timm with the weights that timm's record of it points to. Raises WeightsUnavailable."""
    import timm

    config = pretrained_config(name)
    if config.hf_hub_id:
        file = config.hf_hub_filename or "pytorch_model.bin"
        safe = "model.safetensors" if file == "pytorch_model.bin" else str(Path(file).with_suffix(".safetensors"))
        path = weights.from_hub(config.hf_hub_id, dict.fromkeys((safe, file)))
    elif config.url:
        path = weights.from_url(config.url, Path(torch.hub.get_dir()) / "checkpoints")
    else:
        raise WeightsUnavailable(f"timm has no pretrained weights for {name}: start with --init FILE or --init none")
    try:
        # Loaded by timm, which renames the layers of its older files and knows which ones classify.
        model: nn.Module = timm.create_model(
            name, pretrained=True, num_classes=1, pretrained_cfg_overlay={"file": str(path)}
        )
    except (RuntimeError, SafetensorError) as error:
        raise WeightsUnavailable(
            f"{path} does not hold the weights of {name} ({first_line(error)}): delete it to download it again"
        ) from None
    return model


def pretrained_config(name: str) -> Any:
    """timm's record of a network and its pretrained weights. Raises UnknownVariant."""
    import timm

    if not timm.is_model(name):
        names = timm.list_models()
        suggestion = did_you_mean(name, names, prefix=TIMM_PREFIX)
        raise UnknownVariant(f"timm has no network {name!r}: {suggestion}timm.list_models() lists all {len(names)}")
    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:  # NAME.TAG with a tag that does not exist
        raise UnknownVariant(f"timm has no network {name!r}: {error}") from None
