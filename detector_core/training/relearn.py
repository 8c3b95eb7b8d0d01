"""Relearning the last layer: features of everything before it, which stays as it is, and a new last layer on them.

::

    x_BCHW -> the network without its last layer -> feature_BD -> last layer -> logit_B1
                                                 -> other_B    (a fine-tuned branch next to the heads, if there is one)

The features of replayed images are cached by content (:mod:`detector_core.training.features`), so that a round takes
seconds. Half of the loss at most comes from the new images; the rest is the old training split, so that the model does
not forget.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from detector_core.config import AugmentSpec, PreprocessSpec
from detector_core.errors import BadConfig, BadImage
from detector_core.labels import targets
from detector_core.networks.frozen import FrozenNetwork
from detector_core.networks.openvino_graphs import compile_network
from detector_core.training.features import COMPUTE_DTYPE_ON_CPU, FeatureExtractor, FeatureReport, compute_features

MAX_TAG_WEIGHT = 0.5
"""Largest part of the loss that comes from the tags."""
TAG_IMAGES = 8
"""A tag weighs as much as this many replayed images, up to MAX_TAG_WEIGHT for all."""
HALVINGS = 3
"""How often the weight of the tags may be halved."""
STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 300, 128, 1e-3, 1e-2


@dataclass(frozen=True, kw_only=True)
class LastLayerInputs:
    """What the last layer gets for N images.

    Attributes:
        feature_ND: float32, the input of the last layer.
        other_N: float32, the logit of the branch next to it; None if the network has none.
    """

    feature_ND: torch.Tensor
    other_N: torch.Tensor | None


class Trunk:
    """A trained network without its last layer; in evaluation mode, on the CPU.

    Raises:
        BadConfig: the network does not end in a linear layer with one output.
    """

    def __init__(self, network: nn.Module, preprocess: PreprocessSpec) -> None:
        self.network, self.preprocess = network.eval(), preprocess
        self.name, self.last_layer = _find_last_layer(network)
        self._compiled: Callable[[torch.Tensor], torch.Tensor] | None = None
        self.has_other = isinstance(network, FrozenNetwork) and network.tuned is not None
        digest = hashlib.sha256()
        for name, value in sorted(network.state_dict().items()):
            if not name.startswith(f"{self.name}."):
                digest.update(name.encode() + value.contiguous().numpy().tobytes())
        self.sha256 = digest.hexdigest()

    def inputs(
        self,
        rows: pd.DataFrame,
        root: str,
        title: str,
        *,
        cache: Path | None,
        progress: Callable[[FeatureReport], object] = lambda _: None,
    ) -> LastLayerInputs:
        """The inputs of the last layer for images.

        Args:
            rows: columns ``path`` and ``sha256`` are read.
            root: folder or URI that the paths are relative to.
            title: names these images in reports of progress.
            cache: folder that keeps the inputs by content; None keeps none.

        Raises:
            BadImage: an image is missing or damaged; names the file.
        """
        extractor = FeatureExtractor(
            compute=self._compute,
            backbones=(f"without last layer {self.sha256}",),
            preprocess=self.preprocess,
            augment=AugmentSpec(),
            seed=0,
            versions=1,
            compute_dtype=COMPUTE_DTYPE_ON_CPU,
            device=torch.device("cpu"),
        )
        computing = compute_features(extractor, rows, root, title, cache=cache)
        try:
            while True:
                progress(next(computing))
        except StopIteration as stop:
            features = stop.value
        if features.broken:
            raise BadImage(next(iter(features.broken.values())))
        feature_ND = torch.from_numpy(features.feature_NVD[:, 0])
        if not self.has_other:
            return LastLayerInputs(feature_ND=feature_ND, other_N=None)
        return LastLayerInputs(feature_ND=feature_ND[:, :-1].contiguous(), other_N=feature_ND[:, -1].contiguous())

    def with_last_layer(self, last_layer: nn.Module) -> "Trunk":
        """The same network with another last layer, in evaluation mode."""
        other = copy.copy(self)
        other.last_layer = last_layer.eval()
        return other

    @torch.inference_mode()
    def logits(self, inputs: LastLayerInputs) -> NDArray[np.float32]:
        """logit_N of the network with its last layer."""
        logit_N = self.last_layer(inputs.feature_ND).mean(1)
        return np.asarray(logit_N if inputs.other_N is None else (logit_N + inputs.other_N) / 2, dtype=np.float32)

    def _compute(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        if self._compiled is None:
            beginning = _BeforeLastLayer(self.network, self.last_layer)
            self._compiled = compile_network(beginning, self.preprocess.image_size, torch.get_num_threads())
        return self._compiled(x_BCHW)


class _BeforeLastLayer(nn.Module):
    """x_BCHW -> the input of the last layer: of a frozen network its features, then the other branch's logit."""

    def __init__(self, network: nn.Module, last_layer: nn.Module) -> None:
        super().__init__()
        self.network, self.last_layer = network, last_layer

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        network = self.network
        if isinstance(network, FrozenNetwork):
            feature_BD = network.features(x_BCHW)
            return torch.cat([feature_BD, network.tuned(x_BCHW)], dim=1) if network.tuned else feature_BD
        seen: list[torch.Tensor] = []
        handle = self.last_layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        network(x_BCHW)
        handle.remove()
        return seen[0].flatten(1)


def _find_last_layer(network: nn.Module) -> tuple[str, nn.Module]:
    """The name and module of the last layer: the heads of a frozen network, or a linear layer with one output."""
    if isinstance(network, FrozenNetwork):
        return "head", network.head
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not layers or layers[-1][1].out_features != 1:
        raise BadConfig(
            f"{type(network).__name__} does not end in a linear layer with one output: it has no head to relearn"
        )
    return layers[-1]


def tag_weights(tags: int, replayed: int) -> list[float]:
    """The parts of the loss that may come from the tags, to be tried in turn.

    The first is their number times TAG_IMAGES, at most MAX_TAG_WEIGHT; each other one is half of the one before.
    """
    first = min(MAX_TAG_WEIGHT, TAG_IMAGES * tags / (TAG_IMAGES * tags + replayed))
    return [first / 2**halvings for halvings in range(HALVINGS + 1)]


def fit_last_layer(
    trunk: Trunk,
    tags: LastLayerInputs,
    tag_labels: "pd.Series[str]",
    replay: LastLayerInputs | None,
    replay_labels: "pd.Series[str] | None" = None,
    *,
    weight: float,
    seed: int,
) -> nn.Module:
    """Trains the last layer on from the live one, with both classes and both sources drawn evenly.

    Args:
        trunk: the network without its last layer, and the live last layer, which is not changed.
        tags, tag_labels: the new images.
        replay, replay_labels: the old training images; None trains on the new ones alone, which forgets.
        weight: part of the loss that comes from the tags; the rest comes from the replayed images, if there are some.
        seed: of the batches and of dropout.

    Returns:
        The new last layer, in evaluation mode.
    """
    layer = copy.deepcopy(trunk.last_layer).train()
    for parameter in layer.parameters():
        parameter.requires_grad_(True)
    sources = [(tags.feature_ND, torch.from_numpy(targets(tag_labels)), weight)]
    if replay is not None and replay_labels is not None:
        sources.append((replay.feature_ND, torch.from_numpy(targets(replay_labels)), 1 - weight))
    optimizer = torch.optim.AdamW(layer.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    draw = np.random.default_rng(seed)
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(STEPS):
            loss = torch.zeros(())
            for feature_ND, target_N, share in sources:
                rows = torch.from_numpy(_draw_rows(draw, target_N.numpy(), BATCH // 2))
                logit_BK = layer(feature_ND[rows])
                target_BK = target_N[rows, None].expand_as(logit_BK)
                loss = loss + share * nn.functional.binary_cross_entropy_with_logits(logit_BK, target_BK)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return layer.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Computes on one thread: the steps are so small that several wait for each other, minutes on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _draw_rows(draw: np.random.Generator, target_N: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """``count`` rows, half of each class."""
    parts = [np.flatnonzero(target_N == value) for value in (0.0, 1.0)]
    return np.concatenate(
        [draw.choice(part, count // 2, replace=len(part) < count // 2) for part in parts if len(part)]
    )
