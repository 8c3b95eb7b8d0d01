"""Explanations: Grad-CAM heat maps of the evidence for a verdict, and the images with the largest errors.

Grad-CAM weights the channels of a feature map by the gradient of the verdict's score and keeps the positive part. The
feature map is the deepest one that has at least MIN_CELLS rows and columns: for an image of 128 px the last feature map
of Resnet-68 has 4 x 4 cells, too coarse to point at anything. A heat map shows what moved the score, not where an image
was manipulated.

Networks whose last layers have no feature map of rows and columns (transformers) cannot be explained.

Source: R. R. Selvaraju et al., "Grad-CAM: Visual explanations from deep networks via gradient-based localization",
ICCV 2017.
"""

from collections.abc import Sequence
from functools import partial

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

MIN_CELLS = 7
"""Fewest rows and columns of the explained feature map, as in a ResNet at 224 px."""

WORST_IMAGES, COLUMNS, DPI = "worst.png", 8, 100
OTHER = {REAL: FAKE, FAKE: REAL}


def heat_maps(network: nn.Module, x_BCHW: torch.Tensor, toward: Sequence[str]) -> list[Heat]:
    """Computes a heat map of the evidence for a label in each image.

    Args:
        network: in eval mode; its parameters and gradients are not changed.
        x_BCHW: normalized images.
        toward: for each image, the label whose evidence is shown.

    Returns:
        heat_HW for each image, from 0 to 1, where 1 is its strongest cell; all 0 if there is no evidence for the label.

    Raises:
        BadConfig: the network has no feature map to explain.
    """
    outputs: list[torch.Tensor] = []
    module = _feature_layer(network, x_BCHW)
    hook = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        with torch.enable_grad():
            logit_B = network(x_BCHW.detach().requires_grad_()).flatten()
            sign_B = torch.tensor([1.0 if label == FAKE else -1.0 for label in toward], device=logit_B.device)
            (gradient,) = torch.autograd.grad((logit_B * sign_B).sum(), outputs[-1])
    finally:
        hook.remove()
    feature_BDhw = outputs[-1].detach()
    heat_B1hw = (gradient.mean((2, 3), keepdim=True) * feature_BDhw).sum(1, keepdim=True).relu()
    heat_B1HW = interpolate(heat_B1hw, size=x_BCHW.shape[2:], mode="bilinear", align_corners=False)
    strongest = heat_B1HW.amax((2, 3), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return list((heat_B1HW / strongest).squeeze(1).cpu().numpy())


def _feature_layer(network: nn.Module, x_BCHW: torch.Tensor) -> nn.Module:
    """The last module to finish whose feature map has MIN_CELLS rows and columns, or as many as the network has.

    Layers within a block that reduces the resolution do not count, although the first of them still have the larger
    map: they are only one branch of the block.
    """
    modules: dict[str, nn.Module] = dict(network.named_modules())
    cells: dict[str, int] = {}
    tokens = False

    def record(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal tokens
        cells.pop(name, None)  # if a module is called again, its last call counts
        if isinstance(output, torch.Tensor) and output.dim() == 4:
            cells[name] = min(output.shape[2:])
        tokens |= isinstance(output, torch.Tensor) and output.dim() == 3

    hooks = [module.register_forward_hook(partial(record, name)) for name, module in modules.items() if name]
    try:
        with torch.no_grad():
            network(x_BCHW[:1])
    finally:
        for hook in hooks:
            hook.remove()
    most_cells = max(cells.values(), default=0)
    if tokens or most_cells < 2:
        raise BadConfig(f"{type(network).__name__} has no feature map to draw a heat map from")
    enough = [name for name in cells if cells[name] >= min(MIN_CELLS, most_cells)]
    coarser_blocks = [name for name in cells if name not in enough and not isinstance(modules[name], nn.Sequential)]
    outside = [name for name in enough if not any(name.startswith(f"{block}.") for block in coarser_blocks)]
    return modules[(outside or enough)[-1]]


def largest_errors(scores: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
    """For each label, the ``count`` images whose p_fake is farthest from it, the worst first.

    Args:
        scores: columns path, label, p_fake.
    """
    error = (scores["p_fake"] - labels.targets(scores["label"])).abs()
    ordered = scores.assign(error=error).sort_values(["error", "path"], ascending=[False, True])
    return {label: ordered[ordered["label"] == label].head(count).drop(columns="error") for label in LABELS}


def draw_worst_images(
    network: nn.Module, preprocess: PreprocessSpec, scores: pd.DataFrame, root: str, fake_above: float
) -> bytes:
    """A PNG file: for each class the COLUMNS images farthest from their label, each above its heat map.

    A heat map shows the evidence for the *wrong* verdict. A red title marks an error at the threshold ``fake_above``.
    For a network without feature maps, the images have no heat maps.

    Args:
        scores: columns path, label, p_fake (calibrated).
        root: folder or URI that the paths are relative to.
    """
    from detector_core import plotting  # matplotlib, which a service that draws no figures need not load

    worst = {label: rows for label, rows in largest_errors(scores, COLUMNS).items() if len(rows)}
    figure = plotting.new_figure(1.6 * COLUMNS, 4.0 * len(worst))
    axes = figure.subplots(2 * len(worst), COLUMNS, squeeze=False)
    for number, (label, rows) in enumerate(worst.items()):
        images = [square(decode(storage.read_bytes(storage.join(root, path))), preprocess) for path in rows["path"]]
        x_BCHW = torch.stack([to_input(image, preprocess) for image in images])
        try:
            heats = heat_maps(network, x_BCHW, [OTHER[label]] * len(images))
        except BadConfig:
            heats = []
        image_axes, heat_axes = axes[2 * number], axes[2 * number + 1]
        for column, (image, p_fake) in enumerate(zip(images, rows["p_fake"], strict=True)):
            is_error = (p_fake >= fake_above) != (label == FAKE)
            image_axes[column].imshow(image)
            image_axes[column].set_title(f"p_fake {p_fake:.3f}", fontsize=9, color="tab:red" if is_error else "dimgray")
            heat_axes[column].imshow(image.mean(2), cmap="gray", vmin=0, vmax=255)
            if heats:
                heat_axes[column].imshow(heats[column], cmap="inferno", alpha=0.6, vmin=0, vmax=1)
            heat_axes[column].set_title(rows["path"].iloc[column].rpartition("/")[2], fontsize=7)
        image_axes[0].set_ylabel(f"labeled {label}", fontsize=10)
        heat_axes[0].set_ylabel(f"evidence for {OTHER[label]}" if heats else "no heat maps", fontsize=10)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.set_frame_on(False)
    return plotting.png(figure, DPI)
