"""What is left of a model's figures when images are re-encoded, resized, blurred, made noisy or cropped.

One table of changes, applied to decoded images at their own size, before the network's preprocessing. Each image is
read and decoded once for the whole grid. Thresholds are the frozen ones: a change that only shifts all scores costs
accuracy, as it would in service.
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
from detector_core.evaluation.metrics import Confusion, ranking
from detector_core.images.preprocess import Pixels, decode, normalize, square
from detector_core.labels import FAKE, LABELS, REAL

UNCHANGED = "unchanged"
SWAP_QUALITY = 75


def jpeg(image_HWC: Pixels, _: np.random.Generator, *, quality: int) -> Pixels:
    """Through a JPEG file of that quality, with halved colour resolution."""
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(buffer).convert("RGB"))


def resize(image_HWC: Pixels, _: np.random.Generator, *, factor: float) -> Pixels:
    """Smaller by ``factor`` and back to its size, both antialiased bilinear."""
    height, width = image_HWC.shape[:2]
    small = max(1, round(width * factor)), max(1, round(height * factor))
    image = Image.fromarray(image_HWC).resize(small, Image.Resampling.BILINEAR)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def blur(image_HWC: Pixels, _: np.random.Generator, *, sigma: float) -> Pixels:
    """Gaussian blur, ``sigma`` in pixels."""
    return np.asarray(Image.fromarray(image_HWC).filter(ImageFilter.GaussianBlur(sigma)))


def noise(image_HWC: Pixels, draw: np.random.Generator, *, sigma: float) -> Pixels:
    """Gaussian noise, ``sigma`` in grey levels of 255, each channel for itself."""
    noisy = image_HWC + draw.normal(0, sigma, image_HWC.shape)
    return noisy.round().clip(0, 255).astype(np.uint8)


def crop(image_HWC: Pixels, _: np.random.Generator, *, share: float) -> Pixels:
    """The middle, ``share`` of each side."""
    height, width = image_HWC.shape[:2]
    tall, wide = max(1, round(height * share)), max(1, round(width * share))
    top, left = (height - tall) // 2, (width - wide) // 2
    return image_HWC[top : top + tall, left : left + wide]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One cell's change; images of classes outside ``only`` stay as they are."""

    apply: Callable[[Pixels, np.random.Generator], Pixels]
    only: tuple[str, ...] = LABELS


# PNG keeps pixels as they are. So "reals as JPEG, fakes as PNG" changes the reals alone: a model that has learnt the
# encoding instead of the face fails on one of these two rows.
CHANGES: dict[str, Change] = {
    **{f"JPEG quality {q}": Change(apply=partial(jpeg, quality=q)) for q in (95, 75, 50, 30)},
    **{f"resized to {f:g} and back": Change(apply=partial(resize, factor=f)) for f in (0.75, 0.5, 0.25)},
    **{f"blur sigma {s:g}": Change(apply=partial(blur, sigma=s)) for s in (0.5, 1, 1.5, 3)},
    **{f"noise sigma {s:g}": Change(apply=partial(noise, sigma=s)) for s in (5, 10)},
    **{f"middle {s:.0%}": Change(apply=partial(crop, share=s)) for s in (0.9, 0.75)},
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
    """The logit of each image unchanged and under each of :data:`CHANGES`, in the order of the rows.

    Returns:
        Columns path, label, then one per change, float32. Noise is drawn from the image's path alone.

    Raises:
        BadImage: an image that is gone or not whole; names the file.
    """
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    parts: dict[str, list[Any]] = {name: [] for name in (UNCHANGED, *CHANGES)}
    with torch.inference_mode(), ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(rows), batch_size):
            batch = rows.iloc[first : first + batch_size]
            images = list(pool.map(partial(_image, root), batch["path"]))
            for name, squared in _changed(pool, images, batch, preprocess):
                pixels_BSSC = torch.from_numpy(np.stack(squared)).to(device)
                parts[name].append(model(normalize(pixels_BSSC, preprocess)).flatten().float().cpu().numpy())
    logits = {name: np.concatenate(part) for name, part in parts.items()}
    return pd.DataFrame({"path": rows["path"].to_numpy(), "label": rows["label"].to_numpy(), **logits})


def _image(root: str, path: str) -> Pixels:
    where = storage.join(root, path)
    try:
        return decode(storage.read_bytes(where))
    except BadImage as error:
        raise BadImage(f"{where}: {error}") from None
    except FileNotFoundError:
        raise BadImage(f"{where}: the file is gone") from None


def _changed(
    pool: ThreadPoolExecutor, images: list[Pixels], batch: pd.DataFrame, preprocess: PreprocessSpec
) -> Iterator[tuple[str, list[Pixels]]]:
    """The batch at the network's size, change after change."""

    def one(change: Change | None, image: Pixels, path: str, label: str) -> Pixels:
        if change is None or label not in change.only:
            return square(image, preprocess)
        return square(change.apply(image, np.random.default_rng(zlib.crc32(path.encode()))), preprocess)

    for name in (UNCHANGED, *CHANGES):
        yield name, list(pool.map(partial(one, CHANGES.get(name)), images, batch["path"], batch["label"]))


def evaluate_grid(grid: pd.DataFrame, calibration: Calibration) -> list[dict[str, Any]]:
    """Per change AUC, fakes caught at 1 % false alarms, and at the frozen threshold accuracy and both errors."""
    is_fake = labels.is_fake(grid["label"])
    found = []
    for name in (UNCHANGED, *CHANGES):
        logit = grid[name].to_numpy(dtype=np.float64)
        confusion = Confusion.from_scores(is_fake, calibration.p_fake(logit), calibration.fake_above)
        ranks = ranking(is_fake, logit)
        figures = {
            "auc": ranks["auc"],
            "fakes_caught_at_0.01": ranks["fakes_caught_at_0.01"],
            "accuracy": confusion.accuracy,
            "fakes_passed_rate": confusion.fakes_passed_rate,
            "reals_flagged_rate": confusion.reals_flagged_rate,
        }
        found.append({"change": name, **{key: rate.to_dict() for key, rate in figures.items()}})
    return found
