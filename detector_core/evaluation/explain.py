"""Where in an image a network sees its verdict: Grad-CAM heat maps, and the images it gets most wrong.

Grad-CAM weighs the channels of a feature map by the gradient of the verdict's score and keeps what speaks for it. The
map is the deepest one that still has SIDE cells a side: for an image of 128 px the last map of Resnet-68 has 4 x 4
cells, too coarse to point at anything. A heat map shows what moved the score, not what is false in the image.

Left out: networks without a feature map of rows and columns near their end (transformers).

Source: R. R. Selvaraju et al., "Grad-CAM: Visual explanations from deep networks via gradient-based localization",
ICCV 2017.
"""

import io
from collections.abc import Sequence

import pandas as pd
import torch
from torch import nn
from torch.nn.functional import interpolate

from detector_core import labels, storage
from detector_core.config import PreprocessSpec
from detector_core.errors import BadConfig
from detector_core.images.decode import Heat
from detector_core.images.preprocess import decode, square, to_input
from detector_core.labels import FAKE, LABELS, REAL

SIDE = 7
"""Least rows and columns of the explained feature map, as in a ResNet at 224 px."""

WORST, COLUMNS = "worst.png", 8
OTHER = {REAL: FAKE, FAKE: REAL}


def heat_maps(network: nn.Module, x_BCHW: torch.Tensor, toward: Sequence[str]) -> list[Heat]:
    """What in each image speaks for a verdict.

    Args:
        network: in eval mode; its parameters and gradients are left as they are.
        x_BCHW: normalised images.
        toward: for each image, the label whose evidence is shown.

    Returns:
        heat_HW for each image, from 0 to 1, where 1 is its strongest cell; all 0 where nothing speaks for the label.

    Raises:
        BadConfig: the network has no feature map to explain.
    """
    kept: list[torch.Tensor] = []
    module = _feature_layer(network, x_BCHW)
    hook = module.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        with torch.enable_grad():
            logit_B = network(x_BCHW.detach().requires_grad_()).flatten()
            sign_B = torch.tensor([1.0 if label == FAKE else -1.0 for label in toward], device=logit_B.device)
            (gradient,) = torch.autograd.grad((logit_B * sign_B).sum(), kept[-1])
    finally:
        hook.remove()
    map_BDhw = kept[-1].detach()
    heat_B1hw = (gradient.mean((2, 3), keepdim=True) * map_BDhw).sum(1, keepdim=True).relu()
    heat_B1HW = interpolate(heat_B1hw, size=x_BCHW.shape[2:], mode="bilinear", align_corners=False)
    strongest = heat_B1HW.amax((2, 3), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return list((heat_B1HW / strongest).squeeze(1).cpu().numpy())


def _feature_layer(network: nn.Module, x_BCHW: torch.Tensor) -> nn.Module:
    """The last module to finish whose output is a feature map of SIDE cells a side; else of the most cells it has."""
    found: list[tuple[int, nn.Module]] = []
    tokens = False

    def note(module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal tokens
        if isinstance(output, torch.Tensor) and output.dim() == 4:
            found.append((min(output.shape[2:]), module))
        tokens |= isinstance(output, torch.Tensor) and output.dim() == 3

    hooks = [module.register_forward_hook(note) for module in network.modules() if module is not network]
    try:
        with torch.no_grad():
            network(x_BCHW[:1])
    finally:
        for hook in hooks:
            hook.remove()
    fine = max((cells for cells, _ in found), default=0)
    if tokens or fine < 2:
        raise BadConfig(f"{type(network).__name__} has no feature map that a heat map could be drawn from")
    return [module for cells, module in found if cells >= min(SIDE, fine)][-1]


def most_wrong(scores: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
    """For each label, the ``count`` images whose p_fake is farthest from it, the worst first.

    Args:
        scores: columns path, label, p_fake.
    """
    wrong = (scores["p_fake"] - labels.targets(scores["label"])).abs()
    ordered = scores.assign(wrong=wrong).sort_values(["wrong", "path"], ascending=[False, True])
    return {label: ordered[ordered["label"] == label].head(count).drop(columns="wrong") for label in LABELS}


def worst_sheet(
    network: nn.Module, preprocess: PreprocessSpec, scores: pd.DataFrame, root: str, fake_above: float
) -> bytes:
    """A PNG: the COLUMNS images of each class that are farthest from their label, each above its heat map.

    The heat map shows what speaks for the *wrong* verdict. A title in red is an error at ``fake_above``. A network
    without feature maps gets its images without heat maps.

    Args:
        scores: columns path, label, p_fake (calibrated).
        root: what the paths are relative to.
    """
    from matplotlib.figure import Figure  # a service that explains draws no figures

    picked = {label: rows for label, rows in most_wrong(scores, COLUMNS).items() if len(rows)}
    figure = Figure(figsize=(1.6 * COLUMNS, 4.0 * len(picked)), layout="constrained")
    axes = figure.subplots(2 * len(picked), COLUMNS, squeeze=False)
    for number, (label, rows) in enumerate(picked.items()):
        images = [square(decode(storage.read_bytes(storage.join(root, path))), preprocess) for path in rows["path"]]
        x_BCHW = torch.stack([to_input(image, preprocess) for image in images])
        try:
            heats = heat_maps(network, x_BCHW, [OTHER[label]] * len(images))
        except BadConfig:
            heats = []
        upper, lower = axes[2 * number], axes[2 * number + 1]
        for column, (image, p_fake) in enumerate(zip(images, rows["p_fake"], strict=True)):
            wrong = (p_fake >= fake_above) != (label == FAKE)
            upper[column].imshow(image)
            upper[column].set_title(f"p_fake {p_fake:.3f}", fontsize=9, color="tab:red" if wrong else "dimgrey")
            lower[column].imshow(image.mean(2), cmap="grey", vmin=0, vmax=255)
            if heats:
                lower[column].imshow(heats[column], cmap="inferno", alpha=0.6, vmin=0, vmax=1)
            lower[column].set_title(rows["path"].iloc[column].rpartition("/")[2], fontsize=7)
        upper[0].set_ylabel(f"{label}, least like it", fontsize=10)
        lower[0].set_ylabel(f"speaks for {OTHER[label]}" if heats else "no feature maps", fontsize=10)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.set_frame_on(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
