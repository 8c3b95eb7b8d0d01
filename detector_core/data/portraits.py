"""Procedural portraits of people who do not exist, painted from a random number generator.

Everything is a shape with soft edges on a square canvas, painted from back to front: background, long hair, shoulders,
neck, ears, head, features, hair, glasses. Coordinates run from -1 to 1, x to the right and y down. The canvas holds
linear light from 0 (black) to 1 (white), the input of a camera model. Nothing is read from files or the network.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.floating]
Color = tuple[float, float, float]

# sRGB triples, 0-255; every portrait mixes two neighboring colors of a palette.
_SKIN: tuple[Color, ...] = (
    (255, 224, 196),
    (241, 194, 160),
    (224, 172, 125),
    (198, 134, 90),
    (141, 85, 52),
    (92, 56, 38),
)
_HAIR: tuple[Color, ...] = (
    (28, 22, 22),
    (70, 44, 30),
    (120, 72, 40),
    (176, 124, 66),
    (222, 188, 130),
    (176, 172, 168),
)
_IRIS: tuple[Color, ...] = ((62, 40, 26), (104, 70, 36), (92, 110, 60), (70, 104, 140), (104, 124, 136))
_CLOTH: tuple[Color, ...] = (
    (52, 76, 120),
    (140, 46, 52),
    (66, 110, 84),
    (222, 216, 204),
    (58, 56, 62),
    (206, 156, 62),
)
_SCENERY: tuple[Color, ...] = (
    (124, 162, 188), (96, 128, 92), (188, 148, 112), (150, 140, 158), (208, 196, 176), (84, 92, 112), (176, 110, 96),
)  # fmt: skip


def linear(srgb: Color) -> Array:
    """Converts an sRGB triple 0-255 to linear light 0-1, float32."""
    return ((np.asarray(srgb, dtype=np.float32) / 255) ** 2.2).astype(np.float32)


def _box(mask: Array) -> tuple[slice, slice]:
    """The rows and columns where a mask is not 0; most shapes are small, so painting only there saves time."""
    spans = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    rows, columns = (slice(span[0], span[-1] + 1) if len(span) else slice(0) for span in spans)
    return rows, columns


@dataclass(frozen=True)
class _Canvas:
    """An unfinished image: light_SS3 and the coordinates of its pixels."""

    light: Array
    x: Array
    y: Array

    def paint(self, mask: Array, color: Array) -> None:
        """Paints a color, or one color per pixel, with ``mask`` as the opacity."""
        box = _box(mask)
        under = self.light[box]
        under += mask[box][..., None] * (np.broadcast_to(color, self.light.shape)[box] - under)

    def shade(self, mask: Array, amount: float) -> None:
        """Multiplies the light under ``mask`` by up to 1 + ``amount``."""
        box = _box(mask)
        self.light[box] *= 1 + amount * mask[box][..., None]

    def edge(self, distance: Array, softness: float = 0.0) -> Array:
        """A mask that is 1 where ``distance`` < 0 and 0 elsewhere, with an antialiased or softer edge."""
        width = max(softness, 2 / len(self.x))
        inside: Array = np.clip(0.5 - distance / width, 0, 1)
        return inside

    def ellipse(
        self, x: Array, y: Array, cx: float, cy: float, a: float, b: float, *, power: float = 2.0, softness: float = 0.0
    ) -> Array:
        """The mask of a superellipse with semi-axes a and b."""
        u, v = np.abs(x - cx) / a, np.abs(y - cy) / b
        radius = np.sqrt(u * u + v * v) if power == 2 else (u**power + v**power) ** (1 / power)
        return self.edge((radius - 1) * min(a, b), softness)


def _mix(rng: np.random.Generator, palette: tuple[Color, ...]) -> Array:
    """A random color between two neighbors of a palette, linear light."""
    position = rng.uniform(0, len(palette) - 1)
    low, weight = int(position), position - int(position)
    mixed: Array = (1 - weight) * linear(palette[low]) + weight * linear(palette[min(low + 1, len(palette) - 1)])
    return mixed


def _background(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Paints a gradient from sky to ground with lights that are out of focus."""
    first, second = (linear(_SCENERY[i]) for i in rng.choice(len(_SCENERY), 2, replace=False))
    angle = rng.uniform(0, math.pi)
    slope = np.clip(0.5 + 0.4 * (math.cos(angle) * canvas.x + math.sin(angle) * canvas.y), 0, 1)[..., None]
    canvas.light[:] = rng.uniform(0.5, 1.0) * (first + slope * (second - first))
    for _ in range(rng.integers(3, 9)):
        cx, cy, radius = rng.uniform(-1, 1), rng.uniform(-1, 0.6), rng.uniform(0.08, 0.3)
        disc = canvas.ellipse(canvas.x, canvas.y, cx, cy, radius, radius, softness=rng.uniform(0.02, 0.12))
        canvas.paint(
            disc * rng.uniform(0.15, 0.5), linear(_SCENERY[rng.integers(len(_SCENERY))]) * rng.uniform(0.8, 1.6)
        )


def _strands(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Light and dark streaks of hair that fall from a parting: about -1 to 1."""
    angle = np.arctan2(y + 0.9, x + rng.uniform(-0.3, 0.3)) + 0.15 * np.sin(rng.uniform(2, 6) * y + rng.uniform(0, 6))
    waves = [
        np.sin(f * angle + p)
        for f, p in zip(rng.uniform(12, 70, 4).tolist(), rng.uniform(0, 6.3, 4).tolist(), strict=True)
    ]
    streaks: Array = np.mean(waves, axis=0) * 1.4
    return streaks


def _eye(
    canvas: _Canvas, x: Array, y: Array, cx: float, cy: float, look: dict[str, float], iris: Array, skin: Array
) -> None:
    """Paints an eye: shade of the socket, white, iris, pupil, lid and a reflection."""
    a, b = look["eye_width"], look["eye_height"]
    canvas.shade(canvas.ellipse(x, y, cx, cy - 0.02, a * 1.7, b * 2.6, softness=0.12), -0.22)
    white = canvas.ellipse(x, y, cx, cy, a, b, power=1.7)
    canvas.paint(white, linear((236, 230, 224)))
    gaze, radius = cx + look["gaze"], b * 0.95
    canvas.paint(white * canvas.ellipse(x, y, gaze, cy, radius, radius), iris)
    canvas.paint(white * canvas.ellipse(x, y, gaze, cy, radius * 0.5, radius * 0.5), linear((14, 10, 10)))
    lid = canvas.edge(np.abs(y - cy + b * (1 - ((x - cx) / (a * 1.1)) ** 2)) - 0.016, 0.02) * (np.abs(x - cx) < a * 1.1)
    canvas.paint(lid * 0.85, skin * 0.12)
    canvas.paint(canvas.ellipse(x, y, gaze + 0.018, cy - 0.022, 0.016, 0.016), linear((255, 255, 250)))


def _face(
    canvas: _Canvas, x: Array, y: Array, rng: np.random.Generator, look: dict[str, float], skin: Array, hair: Array
) -> None:
    """Paints brows, eyes, nose, cheeks, mouth and sometimes a beard; x and y are coordinates relative to the head."""
    iris = _mix(rng, _IRIS)
    for side in (-1.0, 1.0):
        cx, cy = side * look["eye_gap"], look["eye_y"]
        _eye(canvas, x, y, cx, cy, look, iris, skin)
        arch = y - (cy - look["brow_y"] + look["brow_tilt"] * side * (x - cx) + 1.4 * (x - cx) ** 2)
        brow = canvas.edge(np.abs(arch) - look["brow_weight"], 0.03) * canvas.edge(
            np.abs(x - cx) - look["eye_width"] * 1.3, 0.05
        )
        canvas.paint(brow * 0.85, hair * 0.7)
        canvas.paint(
            canvas.ellipse(x, y, side * 0.3, 0.2, 0.15, 0.11, softness=0.15) * look["blush"], linear((214, 92, 84))
        )
    tip = look["nose_y"]
    canvas.shade(canvas.ellipse(x, y, 0.045 * look["light_x"], tip - 0.14, 0.035, 0.2, softness=0.06), 0.16)
    canvas.shade(canvas.ellipse(x, y, -0.08 * look["light_x"], tip - 0.06, 0.05, 0.16, softness=0.08), -0.2)
    canvas.shade(canvas.ellipse(x, y, 0, tip + 0.02, look["nose_width"], 0.035, softness=0.05), -0.35)
    mouth_y, width, smile = look["mouth_y"], look["mouth_width"], look["smile"]
    curve = y - mouth_y + smile * ((x / width) ** 2 - 0.5)
    taper = np.clip(1 - (x / width) ** 2, 0, 1)
    lips = canvas.edge(np.abs(curve) - look["lip"] * np.sqrt(taper), 0.02) * (taper > 0)
    canvas.paint(lips * 0.8, skin * linear((226, 130, 126)) * 1.1)
    canvas.paint(
        canvas.edge(np.abs(curve) - look["mouth_open"] * taper, 0.02) * (taper > 0) * 0.9, linear((70, 24, 26))
    )
    canvas.paint(
        canvas.edge(np.abs(curve + 0.012) - look["teeth"] * taper, 0.02) * (taper > 0.1), linear((232, 226, 216))
    )
    canvas.shade(canvas.ellipse(x, y, 0, mouth_y + 0.12, 0.12, 0.03, softness=0.06), -0.18)
    if look["beard"] > 0:
        jaw = canvas.ellipse(x, y, 0, 0.34, 0.5, 0.46, softness=0.12) * (1 - lips)
        jaw = jaw * (1 - canvas.ellipse(x, y, 0, -0.05, 0.46, 0.36, softness=0.16))
        canvas.paint(jaw * look["beard"], hair * (0.8 + 0.3 * _strands(x, y, rng))[..., None])


def _glasses(canvas: _Canvas, x: Array, y: Array, rng: np.random.Generator, look: dict[str, float]) -> None:
    """Paints glasses: two rims, a bridge and a faint reflection."""
    frame = linear(_CLOTH[rng.integers(len(_CLOTH))]) * 0.4
    a, b, power = rng.uniform(0.16, 0.2), rng.uniform(0.12, 0.17), rng.uniform(2, 4)
    for side in (-1.0, 1.0):
        cx, cy = side * look["eye_gap"], look["eye_y"] + 0.01
        outer = canvas.ellipse(x, y, cx, cy, a, b, power=power)
        inner = canvas.ellipse(x, y, cx, cy, a - 0.03, b - 0.03, power=power)
        canvas.paint(inner * np.clip(0.12 + 0.5 * (x - cx - (y - cy)), 0, 0.25), linear((230, 240, 250)))
        canvas.paint(outer - inner, frame)
    gap = look["eye_gap"] - a
    canvas.paint(canvas.edge(np.abs(y - look["eye_y"] + 0.03) - 0.014) * (np.abs(x) < gap + 0.02), frame)


_LOOK = {
    "eye_gap": (0.2, 0.25), "eye_y": (-0.12, -0.04), "eye_width": (0.09, 0.12), "eye_height": (0.045, 0.068),
    "gaze": (-0.03, 0.03), "brow_y": (0.13, 0.18), "brow_tilt": (-0.2, 0.2), "brow_weight": (0.012, 0.03),
    "nose_y": (0.16, 0.24), "nose_width": (0.06, 0.1), "mouth_y": (0.36, 0.44), "mouth_width": (0.15, 0.25),
    "smile": (-0.02, 0.12), "lip": (0.03, 0.055), "mouth_open": (0.0, 0.03), "teeth": (-0.03, 0.02),
    "blush": (0.0, 0.3), "light_x": (-1.0, 1.0), "beard": (-1.2, 0.8), "head_width": (0.46, 0.56),
    "head_height": (0.64, 0.74), "head_power": (2.0, 2.6), "hair_length": (-0.5, 0.9), "hairline": (0.28, 0.5),
    "parting": (-0.3, 0.3), "fringe": (-0.5, 0.5),
}  # fmt: skip
"""Range of each property of a face, in coordinates from -1 to 1."""


def portrait(rng: np.random.Generator, size: int) -> Array:
    """Paints a portrait: light_SS3 float32, linear light from 0 to about 1.

    Args:
        rng: the only source of randomness; the same state gives the same portrait.
        size: side of the canvas in pixels.
    """
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(axis, axis)
    canvas = _Canvas(np.zeros((size, size, 3), dtype=np.float32), x, y)
    _background(canvas, rng)

    skin, hair, cloth = _mix(rng, _SKIN), _mix(rng, _HAIR), linear(_CLOTH[rng.integers(len(_CLOTH))])
    look = {name: float(rng.uniform(low, high)) for name, (low, high) in _LOOK.items()}
    strands = _strands(x, y, rng)
    locks = hair * (0.85 + 0.45 * strands)[..., None]

    # Coordinates relative to the head, which is shifted, tilted and scaled.
    tilt, scale = rng.normal(0, 0.09), rng.uniform(0.9, 1.08)
    cosine, sine = math.cos(tilt) / scale, math.sin(tilt) / scale
    dx, dy = x - rng.uniform(-0.12, 0.12), y - rng.uniform(-0.1, 0.06)
    hx, hy = cosine * dx + sine * dy, cosine * dy - sine * dx
    a, b = look["head_width"], look["head_height"]

    if look["hair_length"] > 0:
        length = look["hair_length"]
        canvas.paint(
            canvas.ellipse(hx, hy, 0, 0.25 * length, a * 1.28, b * (1 + 0.35 * length), power=2.4), locks * 0.75
        )
    canvas.paint(
        canvas.ellipse(x, y, 0, 1.12, 0.86, 0.5, power=2.4, softness=0.03), cloth * (0.8 + 0.25 * x)[..., None]
    )
    canvas.paint(canvas.ellipse(hx, hy, 0, 0.72, 0.22, 0.36, power=3, softness=0.03), skin * 0.62)
    canvas.paint(canvas.ellipse(x, y, 0, 0.98, 0.33, 0.2, softness=0.03), skin * 0.72)
    for side in (-1.0, 1.0):
        canvas.paint(canvas.ellipse(hx, hy, side * a, 0.02, 0.075, 0.14), skin * 0.7)

    # The head is shaded as an ellipsoid, by Lambert's law.
    head = canvas.ellipse(hx, hy, 0, 0, a, b, power=look["head_power"])
    nx, ny = np.clip(hx / (a * 1.15), -1, 1), np.clip(hy / (b * 1.15), -1, 1)
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0.02, 1))
    lambert = np.clip(0.5 * look["light_x"] * nx - 0.35 * ny + 0.8 * nz, 0, 1)
    pores = ndimage.gaussian_filter(rng.normal(0, 1, (size, size)).astype(np.float32), size / 110)
    canvas.paint(head, skin * (0.35 + 0.75 * lambert + 0.1 * pores)[..., None])
    _face(canvas, hx, hy, rng, look, skin, hair)

    if look["hair_length"] > -0.42:
        bow = look["fringe"] * (hx - look["parting"]) ** 2 + 0.9 * np.abs(hx - look["parting"]) ** 1.6
        crown = canvas.ellipse(hx, hy, 0, -0.06, a * 1.12, b * 1.08, power=2.2)
        front = canvas.edge(hy - (-b + look["hairline"] - 0.12 + bow), 0.05)
        canvas.paint(crown * front, locks * (0.7 + 0.5 * lambert)[..., None])
    if rng.random() < 0.25:
        _glasses(canvas, hx, hy, rng, look)
    lit: Array = np.clip(canvas.light * rng.uniform(0.85, 1.15), 0, 1.2).astype(np.float32)
    return lit
