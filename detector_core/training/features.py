"""Features of frozen backbones: computed once per image, shared by all workers, cached by image checksum.

::

    CACHE/features/SETTINGS_HASH/NAME.npz     sha256 (N,) of the images, features (N, D) float32

SETTINGS_HASH covers everything but the image that determines a feature: the backbones and the checksums of their
weights, the preprocessing, the compute dtype and, for an augmented version, the augmentation, its number and the seed.
An image that moves to another split or data set is not computed again. Each worker writes its own files atomically, so
an interrupted run resumes where it stopped.
"""

import dataclasses
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from detector_core import storage
from detector_core.config import AugmentSpec, PreprocessSpec
from detector_core.data.cache import load_square
from detector_core.data.epochs import WorkerRank
from detector_core.data.loading import SplitFeatures
from detector_core.images.augment import Augment
from detector_core.images.decode import Pixels
from detector_core.images.preprocess import normalize
from detector_core.networks import catalog, packaged_weights
from detector_core.networks.frozen import FeatureNetwork, FrozenNetwork
from detector_core.networks.openvino_graphs import compile_network
from detector_core.training.distributed import all_gather
from detector_core.training.optimizer import resolve_compute_dtype
from detector_core.training.step import TrainState, autocast

BATCH = 32
SAVE_EVERY = 512
"""Images after which a worker writes what it has."""
COMPUTE_DTYPE_ON_CPU = "fp32 by OpenVINO on cpu"
"""In the cache's folder; torch gives the same features to about four digits."""


@dataclass(frozen=True, kw_only=True)
class FeatureReport:
    """Progress of this worker: images done, of those that it has to compute; each version of an image counts."""

    split: str
    done: int
    images: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class FeatureExtractor:
    """Everything but the image that determines its features.

    Attributes:
        compute: x_BCHW float32 -> feature_BD float32, in evaluation mode, without gradients.
        backbones: names and checksums of the weights, for the cache's folder.
        versions: number of versions of an image, the image itself first: ``AugmentSpec.versions`` + 1 in training, 1
            on other splits.
        compute_dtype: of the backbones, with the kind of device, for the cache's folder.
    """

    compute: Callable[[torch.Tensor], torch.Tensor]
    backbones: tuple[str, ...]
    preprocess: PreprocessSpec
    augment: AugmentSpec
    seed: int
    versions: int
    compute_dtype: str
    device: torch.device

    def folder(self, cache: Path, version: int) -> Path:
        """Where the features of one version are cached."""
        parts: dict[str, Any] = {
            "backbones": self.backbones,
            "preprocess": self.preprocess.to_dict(),
            "compute_dtype": self.compute_dtype,
        }
        if version:
            parts |= {"augment": self.augment.to_dict(), "seed": self.seed, "version": version}
        text = json.dumps(parts, sort_keys=True)
        return cache / "features" / hashlib.sha256(text.encode()).hexdigest()[:32]

    def augmentation_seed(self, version: int, sha256: str) -> tuple[int, int, int]:
        """The seed of the augmentation of one version; it depends on the image, not on its row."""
        return self.seed, version, int(sha256[:15], 16)


def compute_features(
    extractor: FeatureExtractor,
    rows: pd.DataFrame,
    root: str,
    split: str,
    *,
    rank: int = 0,
    world_size: int = 1,
    cache: Path | None = None,
    threads: int = 2,
) -> Generator[FeatureReport, None, SplitFeatures]:
    """Computes the features of a split; each worker computes every ``world_size``-th image and receives all.

    Args:
        rows: columns ``path`` and ``sha256`` are read.
        root: folder or URI that the paths are relative to.
        split: name of the split, for the reports.
        cache: folder for features that were computed before and those that are computed now; None keeps none.
        threads: number of threads that decode, if there is one version of each image.

    Yields:
        A report after each batch of this worker.

    Returns:
        The features of all rows, the same on every worker; images that cannot be read are listed as broken.
    """
    paths, digests = [storage.join(root, path) for path in rows["path"]], list(rows["sha256"])
    row_of = {digest: row for row, digest in reversed(list(enumerate(digests)))}  # rows with the same content share it
    unique = sorted(row_of.values())
    pairs = [(row, version) for version in range(extractor.versions) for row in unique][rank::world_size]
    known = [_read(extractor.folder(cache, version)) if cache else {} for version in range(extractor.versions)]
    mine = {pair: known[pair[1]][digests[pair[0]]] for pair in pairs if digests[pair[0]] in known[pair[1]]}
    todo = [pair for pair in pairs if pair not in mine]
    broken: dict[int, str] = {}
    unsaved: dict[tuple[int, int], NDArray[np.float32]] = {}
    started = time.perf_counter()

    def save() -> None:
        if cache:
            _write(extractor, cache, unsaved, digests)
        mine.update(unsaved)
        unsaved.clear()

    augment = Augment(extractor.augment)
    for number, (batch, pixels) in enumerate(_batches(extractor, augment, todo, paths, digests, threads), start=1):
        readable = [(pair, image) for pair, image in zip(batch, pixels, strict=True) if not isinstance(image, str)]
        broken |= {pair[0]: image for pair, image in zip(batch, pixels, strict=True) if isinstance(image, str)}
        if readable:
            pixels_BSSC = torch.from_numpy(np.stack([image for _, image in readable])).to(extractor.device)
            x_BCHW = normalize(pixels_BSSC, extractor.preprocess).contiguous(memory_format=torch.channels_last)
            feature_BD = extractor.compute(x_BCHW).cpu().numpy()
            unsaved |= {pair: feature for (pair, _), feature in zip(readable, feature_BD, strict=True)}
        if len(unsaved) >= SAVE_EVERY:
            save()
        done = min(number * BATCH, len(todo))
        yield FeatureReport(split=split, done=done, images=len(todo), seconds=time.perf_counter() - started)
    save()
    return _gather_features(mine, broken, [row_of[digest] for digest in digests], extractor.versions)


class BackboneFeatures:
    """x_BCHW -> feature_BD of a run's frozen backbones: by OpenVINO on a CPU, by torch on a GPU.

    On a CPU the backbones are compiled for the first images, in fp32, which the heads are evaluated in.

    Attributes:
        compute_dtype: see :class:`FeatureExtractor`.
    """

    def __init__(self, state: TrainState) -> None:
        assert isinstance(state.network, FrozenNetwork)
        self._state, self._network = state, state.network
        self._compiled: Callable[[torch.Tensor], torch.Tensor] | None = None
        self.compute_dtype = COMPUTE_DTYPE_ON_CPU
        if state.device.type != "cpu":  # pragma: no cover - needs a GPU
            dtype = resolve_compute_dtype(state.spec.optim, state.network, state.device)
            self.compute_dtype = f"{dtype} on {state.device.type}"

    def __call__(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        if x_BCHW.device.type != "cpu":  # pragma: no cover - needs a GPU
            with torch.inference_mode(), autocast(self._state):
                return self._network.features(x_BCHW).clone()
        if self._compiled is None:
            size = self._state.spec.preprocess.image_size
            self._compiled = compile_network(FeatureNetwork(self._network), size, torch.get_num_threads())
        return self._compiled(x_BCHW)


def frozen_features(
    compute: BackboneFeatures,
    state: TrainState,
    split: str,
    rows: pd.DataFrame,
    root: str,
    worker: WorkerRank,
    cache: Path | None,
) -> Generator[FeatureReport, None, SplitFeatures]:
    """The features of a run's split; training images have several versions, others one."""
    network, spec = state.network, state.spec
    assert isinstance(network, FrozenNetwork)
    names = catalog.find_network(spec.model.architecture).frozen
    extractor = FeatureExtractor(
        compute=compute,
        backbones=tuple(f"{name} {packaged_weights.PACKAGES[name].sha256}" for name in names),
        preprocess=spec.preprocess,
        augment=dataclasses.replace(spec.augment, crop=0),
        seed=spec.seed,
        versions=1 + (spec.augment.versions if split == "train" else 0),
        compute_dtype=compute.compute_dtype,
        device=state.device,
    )
    features = yield from compute_features(
        extractor, rows, root, split, rank=worker.rank, world_size=worker.world_size, cache=cache
    )
    return dataclasses.replace(features, only_features=network.tuned is None)


def standardize(state: TrainState, features: SplitFeatures) -> None:
    """Standardizes the heads of a new run by its training features."""
    assert isinstance(state.network, FrozenNetwork)
    readable = [row for row in range(len(features.feature_NVD)) if row not in features.broken]
    feature_ND = torch.from_numpy(features.feature_NVD[readable].reshape(-1, features.feature_NVD.shape[2]))
    state.network.head.standardize(feature_ND)
    if state.average:
        state.average.module.head.standardize(feature_ND)  # type: ignore[union-attr,operator]


def _gather_features(
    mine: dict[tuple[int, int], NDArray[np.float32]], broken: dict[int, str], same: list[int], versions: int
) -> SplitFeatures:
    """Every worker's features as one array; ``same`` has, for each row, the one that was computed for it."""
    keys = np.array(list(mine), dtype=np.int64).reshape(-1, 2)
    values = np.stack(list(mine.values())) if mine else np.empty((0, 0), np.float32)
    gathered = all_gather((keys, values, broken))
    width = max(part.shape[1] for _, part, _ in gathered)
    feature_NVD = np.zeros((len(same), versions, width), dtype=np.float32)
    reasons: dict[int, str] = {}
    for pairs, part, reason in gathered:
        if len(pairs):
            feature_NVD[pairs[:, 0], pairs[:, 1]] = part
        reasons |= reason
    reasons = {row: reasons[first] for row, first in enumerate(same) if first in reasons}
    return SplitFeatures(feature_NVD=feature_NVD[same], broken=reasons)


def _batches(
    extractor: FeatureExtractor,
    augment: Augment,
    todo: list[tuple[int, int]],
    paths: list[str],
    digests: list[str],
    threads: int,
) -> Iterator[tuple[list[tuple[int, int]], list[Pixels | str]]]:
    """Images, or why they cannot be read, in batches; the next batch is decoded meanwhile."""

    def load(pair: tuple[int, int]) -> Pixels | str:
        row, version = pair
        image_SSC = load_square(paths[row], extractor.preprocess)
        if version == 0 or isinstance(image_SSC, str):
            return image_SSC
        return augment(image_SSC, extractor.augmentation_seed(version, digests[row]))

    with ThreadPoolExecutor(1 if extractor.versions > 1 else threads) as pool:  # Augment is seeded before each image
        parts = [todo[first : first + BATCH] for first in range(0, len(todo), BATCH)]
        next_futures = [pool.submit(load, pair) for pair in parts[0]] if parts else []
        for number, part in enumerate(parts):
            futures = next_futures
            next_futures = [pool.submit(load, pair) for pair in parts[number + 1]] if number + 1 < len(parts) else []
            yield part, [future.result() for future in futures]


def _read(folder: Path) -> dict[str, NDArray[np.float32]]:
    """The features in a folder by the image's sha256."""
    features: dict[str, NDArray[np.float32]] = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as part:
            features |= dict(zip(part["sha256"].tolist(), part["features"], strict=True))
    return features


def _write(
    extractor: FeatureExtractor, cache: Path, unsaved: dict[tuple[int, int], NDArray[np.float32]], digests: list[str]
) -> None:
    for version in sorted({version for _, version in unsaved}):
        by_sha256 = {
            digests[row]: feature for (row, image_version), feature in unsaved.items() if image_version == version
        }
        target = extractor.folder(cache, version) / f"{uuid.uuid4().hex}.npz"
        with storage.replacing(target) as temporary:
            np.savez(temporary, sha256=np.array(list(by_sha256)), features=np.stack(list(by_sha256.values())))
