"""Robustness: a model's metrics on changed images.

:data:`CHANGES` is the table of changes. They are applied to decoded images at their original size, before the
preprocessing of the network. Each image is read and decoded once for the whole grid. The thresholds are the frozen
ones, so a change that only shifts all scores lowers the accuracy, as it would in production.
"""

import io
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageFilter

from detector_core import labels, storage
from detector_core.config import PreprocessSpec
from detector_core.errors import BadImage
from detector_core.evaluation.calibration import Calibration
from detector_core.evaluation.metrics import ROBUSTNESS_METRICS, Confusion, ranking
from detector_core.evaluation.scoring import check_finite
from detector_core.images.preprocess import Pixels, decode, normalize, square
from detector_core.labels import FAKE, LABELS, REAL
from detector_core.networks.openvino_graphs import compile_network

UNCHANGED = "unchanged"
SWAP_QUALITY = 75


def jpeg(image_HWC: Pixels, _: np.random.Generator, *, quality: int) -> Pixels:
    """Encodes as JPEG with 4:2:0 chroma subsampling and decodes again."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(buffer).convert("RGB"))


def resize(image_HWC: Pixels, _: np.random.Generator, *, factor: float) -> Pixels:
    """Scales down by ``factor`` and back to the original size, both bilinear with antialiasing."""
    height, width = image_HWC.shape[:2]
    small = max(1, round(width * factor)), max(1, round(height * factor))
    image = Image.fromarray(image_HWC).resize(small, Image.Resampling.BILINEAR)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def blur(image_HWC: Pixels, _: np.random.Generator, *, sigma: float) -> Pixels:
    """Gaussian blur, ``sigma`` in pixels."""
    return np.asarray(Image.fromarray(image_HWC).filter(ImageFilter.GaussianBlur(sigma)))


def noise(image_HWC: Pixels, rng: np.random.Generator, *, sigma: float) -> Pixels:
    """Adds Gaussian noise, independent per channel; ``sigma`` in levels of 0-255."""
    noisy = image_HWC + rng.normal(0, sigma, image_HWC.shape)
    return noisy.round().clip(0, 255).astype(np.uint8)


def crop(image_HWC: Pixels, _: np.random.Generator, *, fraction: float) -> Pixels:
    """Crops the center: ``fraction`` of the height and of the width."""
    height, width = image_HWC.shape[:2]
    crop_height, crop_width = max(1, round(height * fraction)), max(1, round(width * fraction))
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return image_HWC[top : top + crop_height, left : left + crop_width]


def shift(image_HWC: Pixels, _: np.random.Generator, *, fraction: float) -> Pixels:
    """Keeps the upper-left part, 1 - ``fraction`` of the height and of the width: an off-center frame."""
    height, width = image_HWC.shape[:2]
    return image_HWC[: max(1, round(height * (1 - fraction))), : max(1, round(width * (1 - fraction)))]


def webp(image_HWC: Pixels, _: np.random.Generator, *, quality: int) -> Pixels:
    """Encodes as lossy WebP and decodes again."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "WEBP", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def brightness(image_HWC: Pixels, _: np.random.Generator, *, factor: float) -> Pixels:
    """Multiplies every value by ``factor`` and clips at 255."""
    return (image_HWC * np.float32(factor)).round().clip(0, 255).astype(np.uint8)


def screenshot(image_HWC: Pixels, _: np.random.Generator) -> Pixels:
    """Scales down to three quarters, as a screen shows it, and sharpens; a screenshot is stored without loss."""
    height, width = image_HWC.shape[:2]
    size = max(1, round(width * 0.75)), max(1, round(height * 0.75))
    shown = Image.fromarray(image_HWC).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(shown.filter(ImageFilter.UnsharpMask(radius=1, percent=80, threshold=0)))


def reupload(image_HWC: Pixels, rng: np.random.Generator) -> Pixels:
    """Sends an image twice through a service that scales it down and up again and compresses it."""
    for factor, quality in ((0.8, 80), (0.9, 70)):
        image_HWC = jpeg(resize(image_HWC, rng, factor=factor), rng, quality=quality)
    return image_HWC


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of the images whose label is in ``only``; the others stay as they are."""

    apply: Callable[[Pixels, np.random.Generator], Pixels]
    only: tuple[str, ...] = LABELS


# PNG is lossless, so "reals as JPEG, fakes as PNG" changes the reals alone. A model that has learned the encoding
# instead of the face fails on one of the two rows that change one class only.
CHANGES: dict[str, Change] = {
    **{f"JPEG quality {q}": Change(apply=partial(jpeg, quality=q)) for q in (95, 75, 50, 30)},
    **{f"resized to {f:g} and back": Change(apply=partial(resize, factor=f)) for f in (0.75, 0.5, 0.25)},
    **{f"blur sigma {s:g}": Change(apply=partial(blur, sigma=s)) for s in (0.5, 1, 1.5, 3)},
    **{f"noise sigma {s:g}": Change(apply=partial(noise, sigma=s)) for s in (5, 10)},
    **{f"center {s:.0%}": Change(apply=partial(crop, fraction=s)) for s in (0.9, 0.75)},
    "frame shifted by 10%": Change(apply=partial(shift, fraction=0.1)),
    **{f"WebP quality {q}": Change(apply=partial(webp, quality=q)) for q in (80, 50)},
    **{f"brightness x {f:g}": Change(apply=partial(brightness, factor=f)) for f in (0.7, 1.3)},
    "screenshot": Change(apply=screenshot),
    "uploaded twice": Change(apply=reupload),
    "reals as JPEG, fakes as PNG": Change(apply=partial(jpeg, quality=SWAP_QUALITY), only=(REAL,)),
    "fakes as JPEG, reals as PNG": Change(apply=partial(jpeg, quality=SWAP_QUALITY), only=(FAKE,)),
}


def score_grid(
    model: torch.nn.Module,
    rows: pd.DataFrame,
    root: str,
    preprocess: PreprocessSpec,
    *,
    batch_size: int = 64,
    device: str = "cpu",
    threads: int = 1,
) -> pd.DataFrame:
    """Computes the logit of each image, unchanged and under each of :data:`CHANGES`, in the order of the rows.

    On a CPU, OpenVINO computes in fp32: faster than torch (above all depthwise convolutions), with the same scores but
    for rounding.

    Args:
        rows: columns ``path`` and ``label`` are read.
        root: folder or URI that the paths are relative to.
        threads: number of threads that decode and change images, and of compute threads on a CPU.

    Returns:
        Columns path, label, then one per change, float32. Noise is seeded by the path of the image alone.

    Raises:
        BadImage: an image is missing or damaged; names the file.
        BrokenArtifact: the network returns a score that is not finite; names the file and the change.
    """
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    compute = compile_network(model, preprocess.image_size, threads) if device == "cpu" else model
    parts: dict[str, list[Any]] = {name: [] for name in (UNCHANGED, *CHANGES)}
    with torch.inference_mode(), ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(rows), batch_size):
            batch = rows.iloc[first : first + batch_size]
            images = list(pool.map(partial(_read_image, root), batch["path"]))
            for name, squares in _changed_batches(pool, images, batch, preprocess):
                pixels_BSSC = torch.from_numpy(np.stack(squares)).to(device)
                parts[name].append(compute(normalize(pixels_BSSC, preprocess)).flatten().float().cpu().numpy())
    logits = {name: np.concatenate(part) for name, part in parts.items()}
    for name, logit_N in logits.items():
        check_finite(logit_N, [f"{path} ({name})" for path in rows["path"]])
    return pd.DataFrame({"path": rows["path"].to_numpy(), "label": rows["label"].to_numpy(), **logits})


def _read_image(root: str, path: str) -> Pixels:
    file = storage.join(root, path)
    try:
        return decode(storage.read_bytes(file))
    except BadImage as error:
        raise BadImage(f"{file}: {error}") from None
    except FileNotFoundError:
        raise BadImage(f"{file}: the file does not exist") from None


def _changed_batches(
    pool: ThreadPoolExecutor, images: list[Pixels], batch: pd.DataFrame, preprocess: PreprocessSpec
) -> Iterator[tuple[str, list[Pixels]]]:
    """Yields the name of each change and the batch with that change, as squares of the network's size."""

    def changed_square(change: Change | None, image: Pixels, path: str, label: str) -> Pixels:
        if change is None or label not in change.only:
            return square(image, preprocess)
        return square(change.apply(image, np.random.default_rng(zlib.crc32(path.encode()))), preprocess)

    for name in (UNCHANGED, *CHANGES):
        yield name, list(pool.map(partial(changed_square, CHANGES.get(name)), images, batch["path"], batch["label"]))


def evaluate_grid(grid: pd.DataFrame, calibration: Calibration) -> list[dict[str, Any]]:
    """One row per change: its name and :data:`~detector_core.evaluation.metrics.ROBUSTNESS_METRICS`.

    Accuracy and error rates are at the frozen threshold, ``calibration.fake_above``.

    Args:
        grid: from :func:`score_grid`.
    """
    is_fake = labels.is_fake(grid["label"])
    rows = []
    for name in (UNCHANGED, *CHANGES):
        logit = grid[name].to_numpy(dtype=np.float64)
        confusion = Confusion.from_scores(is_fake, calibration.p_fake(logit), calibration.fake_above)
        estimates = confusion.metrics() | ranking(is_fake, logit)
        rows.append({"change": name, **{metric: estimates[metric].to_dict() for metric in ROBUSTNESS_METRICS}})
    return rows
