"""Random weights as files of other projects have them, for tests."""

import torch
from torch import nn

from detector_core.config import ModelSpec
from detector_core.networks.factory import build

TINY = {"layout": (1, 1, 1, 1)}
HEADS = {
    "timm:tf_efficientnet_lite0": "classifier",
    "inception_resnet_v2": "classif",
    "vggface2": "logits",
    "vggface2_resnet50": "fc",
    "timm:resnet18": "fc",
}


def state_of(architecture: str, classes: int) -> tuple[dict[str, torch.Tensor], str]:
    """Random weights of a network with a head of ``classes``, and the head's name."""
    head = HEADS.get(architecture, "fc")
    state = build(ModelSpec(architecture=architecture, **TINY), pretrained=False).state_dict()
    width = state[f"{head}.weight"].shape[1]
    return {**state, f"{head}.weight": torch.rand(classes, width), f"{head}.bias": torch.rand(classes)}, head


def assert_loaded(model: nn.Module, state: dict[str, torch.Tensor], but: str = "!") -> None:
    for name, tensor in model.state_dict().items():
        if not name.startswith(but):
            assert torch.equal(tensor, state[name]), name
