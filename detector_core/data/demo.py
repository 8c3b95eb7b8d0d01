"""Generates demo data from a seed: portraits rendered by a simulated camera ("real") and a simulated decoder ("fake").

The scenes are painted by :mod:`detector_core.data.portraits`; the people in them do not exist and nothing is
downloaded. The data shows that all steps work together but says nothing about photographs, so every result on it is
labeled *generated demo data*: the folder contains :data:`~detector_core.data.manifest.GENERATED_MARK`, which
``jobs.prepare`` records in the manifest.

* **real**: the scene seen by a camera with lens blur, lateral chromatic aberration, vignetting, a Bayer mosaic, shot
  and read noise, bilinear demosaicing and a tone curve.
* **fake**: another scene seen by the decoder of an imaginary generator with weights drawn for each image. It upsamples
  a small latent image by transposed convolutions, whose uneven overlap leaves patterns of period 2 and 4 (A. Odena et
  al., "Deconvolution and checkerboard artifacts", Distill 2016), and adds noise at each stage.

The classes differ in nothing else. Each fake has a *twin*, the same scene seen by the camera, which is not saved: the
fake gets the twin's brightness and contrast, and enough grain that its JPEG has the same size.
"""

import io
import json
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from detector_core import storage
from detector_core.data.manifest import GENERATED_MARK
from detector_core.data.portraits import Array, portrait
from detector_core.errors import BadConfig, OperationRefused
from detector_core.labels import FAKE, KAGGLE_NUMBER, LABELS, REAL, SPLITS

GENERATOR = "detector_core.data.demo 1"
"""Name and version of the generator; increment the version whenever the same parameters yield different images."""
NOTE = "generated demo data: procedural portraits from a seed, no photographs; results on it say nothing about faces"
IMAGES = Path("real_vs_fake", "real-vs-fake")
CSV_COLUMNS = ["original_path", "id", "label", "label_str", "path"]
"""The columns of the Kaggle archive's CSVs, after the unnamed index."""
JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}
"""Both classes are saved in the same way, without chroma subsampling, which would smooth the traces away."""
STAGES = 2
"""Upsampling stages of the decoder: the latent image is 2**STAGES times smaller than the result."""
UNEVENNESS = (0.02, 0.04)
"""Range of the relative standard deviation of the four phases of a transposed convolution, drawn per image."""
DETAIL = (0.4, 0.8)
"""Range of the proportion of a scene's fine detail that the decoder restores, drawn per image."""
MAX_GRAIN, GRAIN_STEPS = 0.12, 7
"""The grain of a fake is found by GRAIN_STEPS bisections between 0 and MAX_GRAIN (display values, 0-1)."""

Progress = Callable[[int, int], None]
"""``progress(done, total)``, in images."""


def camera(scene_light: Array, rng: np.random.Generator) -> Array:
    """Photographs a scene: light_2S2S3 (linear, twice the size) -> display_SS3, both float32 0-1."""
    size = len(scene_light) // 2
    blur, fringe = rng.uniform(0.4, 0.9), rng.uniform(-0.4, 0.4)
    optical = np.empty_like(scene_light)
    for channel, offset in enumerate((fringe, 0.0, -fringe)):
        plane = ndimage.gaussian_filter(scene_light[..., channel], blur * (1 + 0.1 * abs(offset)), mode="nearest")
        optical[..., channel] = ndimage.shift(plane, (0.0, offset), order=1, mode="nearest") if offset else plane
    light = _downsample(optical, 2)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    light *= (1 - rng.uniform(0.05, 0.2) * (axis[:, None] ** 2 + axis**2) / 2)[..., None]

    full_well, read_noise = rng.uniform(400, 1500), rng.uniform(0.002, 0.006)
    noise = rng.normal(0, 1, light.shape).astype(np.float32)
    sensed = light + noise * np.sqrt(light / full_well + read_noise**2)
    display = tone(_demosaic(_bayer(size), sensed))
    sharpened: Array = display + rng.uniform(0.5, 1.2) * (display - ndimage.gaussian_filter(display, (1, 1, 0)))
    return sharpened


def _bayer(size: int) -> Array:
    """The channel that each sensor cell measures: mask_SS3, RGGB."""
    mask = np.zeros((size, size, 3), dtype=np.float32)
    mask[0::2, 0::2, 0] = mask[0::2, 1::2, 1] = mask[1::2, 0::2, 1] = mask[1::2, 1::2, 2] = 1
    return mask


def _demosaic(mask: Array, light: Array) -> Array:
    """Bilinear demosaicing: each missing value is the mean of its measured neighbors."""
    weights = (1.0, 2.0, 1.0)
    smooth = [ndimage.correlate1d(ndimage.correlate1d(a, weights, 0), weights, 1) for a in (light * mask, mask)]
    demosaiced: Array = np.where(mask > 0, light, smooth[0] / smooth[1])
    return demosaiced


def tone(light: Array) -> Array:
    """Applies the tone curve of both classes: linear light -> display values 0-1, float32."""
    display: Array = np.clip(light, 0, 1) ** np.float32(1 / 2.2)
    return display


def _downsample(image: Array, factor: int) -> Array:
    """The mean of each block of ``factor`` x ``factor`` pixels."""
    size = len(image) // factor
    small: Array = image.reshape(size, factor, size, factor, -1).mean(axis=(1, 3))
    return small


def _transposed_convolution(small: Array, unevenness: float, rng: np.random.Generator) -> Array:
    """Doubles the size with zeros between the pixels and a random 4 x 4 kernel whose four phases have unequal sums."""
    padded = np.pad(small, ((1, 1), (1, 1), (0, 0)), mode="edge")
    spread = np.zeros((2 * len(padded), 2 * len(padded), small.shape[2]), dtype=np.float32)
    spread[0::2, 0::2] = padded
    kernel = np.outer(*2 * [np.array([0.25, 0.75, 0.75, 0.25])]) * (1 + rng.normal(0, 0.1, (4, 4)))
    phases = 1 + unevenness * rng.normal(0, 1, (2, 2))
    for row in (0, 1):
        for column in (0, 1):
            phase = kernel[row::2, column::2]
            phase *= phases[row, column] / phase.sum()
    large: Array = ndimage.correlate(spread, kernel[..., None].astype(np.float32))
    return large[2:-2, 2:-2]


def decoder(
    scene_light: Array,
    rng: np.random.Generator,
    *,
    stages: int = STAGES,
    unevenness: tuple[float, float] = UNEVENNESS,
    detail: tuple[float, float] = DETAIL,
) -> tuple[Array, Array]:
    """Decodes a scene: light_2S2S3 -> display_SS3, and grain_SS3 with a standard deviation of 1.

    The image of the generator is ``display_SS3 + g * grain_SS3``; the caller chooses g.

    Args:
        stages, unevenness, detail: see :data:`STAGES`, :data:`UNEVENNESS` and :data:`DETAIL`.
    """
    target = tone(_downsample(scene_light, 2))
    spread, restored = rng.uniform(*unevenness), rng.uniform(*detail)
    scales = [_downsample(target, 2**stage) if stage else target for stage in range(stages + 1)]
    image, grain = scales[-1], np.zeros_like(scales[-1])
    for stage in reversed(range(stages)):
        state = rng.bit_generator.state
        image = _transposed_convolution(image, spread, rng)
        rng.bit_generator.state = state  # the grain passes through the same kernel as the image
        grain = _transposed_convolution(grain + rng.normal(0, 1, (*grain.shape[:2], 1)).astype(np.float32), spread, rng)
        # The learned layers of a real decoder would add the detail that upsampling alone cannot restore.
        smooth = np.repeat(np.repeat(scales[stage + 1], 2, axis=0), 2, axis=1)
        smooth = ndimage.uniform_filter(smooth, (3, 3, 0), mode="nearest")
        image = image + restored * (scales[stage] - smooth)
    grain = grain + 0.5 * rng.normal(0, 1, grain.shape).astype(np.float32)
    grain = grain - grain.mean((0, 1))
    return image, (grain / grain.std()).astype(np.float32)


def encode(display: Array) -> bytes:
    """A JPEG of display_SS3, float32 0-1."""
    pixels: NDArray[np.uint8] = np.clip(np.rint(display * 255), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **JPEG)
    return buffer.getvalue()


def real_image(rng: np.random.Generator, size: int) -> bytes:
    """Renders a JPEG of class real."""
    return encode(camera(portrait(rng, 2 * size), rng))


def fake_image(rng: np.random.Generator, size: int) -> bytes:
    """Renders a JPEG of class fake with the brightness, contrast and file size of a photograph of the same scene."""
    scene = portrait(rng, 2 * size)
    twin = camera(scene, rng)
    image, grain = decoder(scene, rng)
    twin_bytes = len(encode(twin))
    low, high = 0.0, MAX_GRAIN
    for _ in range(GRAIN_STEPS):  # bisection: more grain always makes a larger file
        middle = (low + high) / 2
        fake_bytes = len(encode(_match_contrast(image + middle * grain, twin)))
        low, high = (low, middle) if fake_bytes > twin_bytes else (middle, high)
    return encode(_match_contrast(image + low * grain, twin))


def _match_contrast(image: Array, twin: Array) -> Array:
    """Scales each channel of an image to the mean and standard deviation of its twin's."""
    scale = twin.std((0, 1)) / image.std((0, 1))
    matched: Array = (image - image.mean((0, 1))) * scale + twin.mean((0, 1))
    return matched


_RENDER = {REAL: real_image, FAKE: fake_image}


def generate(
    out: Path, *, seed: int = 0, size: int, counts: Mapping[str, int], progress: Progress | None = None
) -> Path:
    """Writes a folder of generated demo data in the layout of the Kaggle 140k set and returns its path.

    The folder appears complete or not at all. A complete folder with the same parameters is kept as it is.

    Args:
        out: the folder to write.
        seed: the same seed, size and counts give byte-identical files.
        size: side of the square images in pixels; a multiple of 2**STAGES.
        counts: number of images of *each class* per split.
        progress: called after each image.

    Raises:
        BadConfig: the seed, the size or a count is not valid.
        OperationRefused: ``out`` contains something other than generated demo data.
    """
    mark = {"generator": GENERATOR, "seed": seed, "size": size, "counts": dict(counts), "note": NOTE}
    _check(seed, size, counts)
    if _is_complete(out, mark):
        return out
    if out.exists() and not (out / GENERATED_MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise OperationRefused(
            f"{out} contains files that are not generated demo data and would be lost: move them or use another folder"
        )
    total, done = len(LABELS) * sum(counts.values()), 0
    with storage.replacing(out) as temporary:
        for split_number, split in enumerate(SPLITS):
            rows: list[tuple[str, str, int, str, str]] = []
            for label in sorted(LABELS):
                folder = temporary / IMAGES / split / label
                folder.mkdir(parents=True)
                for index in range(counts[split]):
                    # Each image has its own random stream: scenes do not repeat and do not depend on the counts.
                    rng = np.random.default_rng((seed, split_number, KAGGLE_NUMBER[label], index))
                    name = "".join(rng.choice(list(string.ascii_uppercase + string.digits), 10))
                    (folder / f"{name}.jpg").write_bytes(_RENDER[label](rng, size))
                    rows.append((f"{name}.jpg", name, KAGGLE_NUMBER[label], label, f"{split}/{label}/{name}.jpg"))
                    done += 1
                    if progress:
                        progress(done, total)
            rows.sort(key=lambda row: row[-1])
            pd.DataFrame(rows, columns=CSV_COLUMNS).to_csv(temporary / f"{split}.csv")
        (temporary / GENERATED_MARK).write_text(json.dumps(mark, indent=2))
    return out


def _check(seed: int, size: int, counts: Mapping[str, int]) -> None:
    if seed < 0:
        raise BadConfig(f"the demo data's seed is {seed}: it must be 0 or more")
    step = 2**STAGES
    if size < 32 or size % step:
        raise BadConfig(f"the demo data's size is {size}: it must be a multiple of {step}, 32 or more")
    if set(counts) != set(SPLITS) or min(counts.values()) < 1:
        raise BadConfig(f"the demo data's counts are {dict(counts)}: they must give 1 or more to {', '.join(SPLITS)}")


def _is_complete(out: Path, mark: dict[str, Any]) -> bool:
    """Whether a folder contains every image that the parameters in ``mark`` describe."""
    try:
        existing = json.loads((out / GENERATED_MARK).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return existing == mark and all(
        (out / f"{split}.csv").is_file()
        and len(list((out / IMAGES / split / label).glob("*.jpg"))) == mark["counts"][split]
        for split in SPLITS
        for label in LABELS
    )
