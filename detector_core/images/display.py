"""A decoded frame of a clip as a player shows it: colors, shape of the pixels, transparency, rotation and mirroring."""

import struct
from fractions import Fraction
from typing import Any, Final

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc, Interpolation

from detector_core.images.decode import Pixels

HD_HEIGHT: Final = 720
"""From this height on, players take the colors of a clip that does not declare them for BT.709, below it for BT.601."""
MAX_ASPECT: Final = 4
"""Pixels that are longer or wider than this, relative to their other side, are taken as square."""
_UNSPECIFIED_COLORS: Final = 2
_HDR: Final = {ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67}
_STANDARD_PRIMARIES: Final = {
    ColorPrimaries.BT709,
    ColorPrimaries.UNSPECIFIED,
    ColorPrimaries.BT470BG,
    ColorPrimaries.SMPTE170M,
    ColorPrimaries.SMPTE240M,
}
_NOT_APPLIED: Final = {"STEREO3D", "SPHERICAL", "DOVI_METADATA", "DOVI_RPU_BUFFER", "DYNAMIC_HDR_PLUS"}
"""Side data that changes what a player shows, and is not applied here."""
_ONE: Final = 2**16
"""1 as a number of a display matrix."""


def as_shown(frame: VideoFrame, pixel_aspect: Fraction | None, max_pixels: int) -> tuple[Pixels, bool]:
    """Converts a frame to image_HWC, uint8 RGB, as a player shows it.

    Transparent pixels are composited on white, as in still images.

    Args:
        pixel_aspect: width of a pixel divided by its height, as the container or the codec declares it.
        max_pixels: limit of the result; pixels that are not square are not stretched beyond it.

    Returns:
        The image, and whether all of what the frame declares was applied.

    Raises:
        av.FFmpegError, ValueError, OSError: the frame cannot be converted.
    """
    width, height, stretched = _shape(frame, pixel_aspect, max_pixels)
    has_alpha = any(component.is_alpha for component in frame.format.components)
    guessed = frame.colorspace == _UNSPECIFIED_COLORS and not frame.format.is_rgb and frame.height >= HD_HEIGHT
    options: dict[str, Any] = {"src_colorspace": Colorspace.ITU709} if guessed else {}
    if stretched:
        options |= {"width": width, "height": height, "interpolation": Interpolation.BICUBIC}
    pixels: Pixels = np.asarray(
        frame.to_ndarray(format="rgba" if has_alpha else "rgb24", threads=1, **options), np.uint8
    )
    side_data = _side_data(frame)
    upright, turned = _turned(pixels, side_data.get("DISPLAYMATRIX"))
    applied = (
        turned
        and (stretched or pixel_aspect in (None, 0, 1))
        and frame.color_trc not in _HDR
        and frame.color_primaries in _STANDARD_PRIMARIES
        and not frame.interlaced_frame
        and not _NOT_APPLIED & side_data.keys()
    )
    return np.ascontiguousarray(_on_white(upright) if has_alpha else upright), applied


def _shape(frame: VideoFrame, pixel_aspect: Fraction | None, max_pixels: int) -> tuple[int, int, bool]:
    """Width and height in square pixels, and whether they differ from those of the frame."""
    aspect = pixel_aspect or Fraction(1)
    if aspect == 1 or not Fraction(1, MAX_ASPECT) <= aspect <= MAX_ASPECT:
        return frame.width, frame.height, False
    # Only ever enlarged: what is left out would be lost for the network.
    width, height = round(frame.width * max(aspect, Fraction(1))), round(frame.height / min(aspect, Fraction(1)))
    return (width, height, True) if width * height <= max_pixels else (frame.width, frame.height, False)


def _turned(pixels: Pixels, matrix: Any) -> tuple[Pixels, bool]:
    """The pixels turned and mirrored by a frame's display matrix; False if it does more than that."""
    if matrix is None:
        return pixels, True
    # A point (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = (value / _ONE for value in struct.unpack("=5i", bytes(matrix)[:20]))
    if abs(b) < abs(a) / 100 and abs(c) < abs(d) / 100:
        to_right, down = a, d
    elif abs(a) < abs(b) / 100 and abs(d) < abs(c) / 100:
        pixels, to_right, down = pixels.swapaxes(0, 1), c, b
    else:
        return pixels, False
    return pixels[:: 1 if down > 0 else -1, :: 1 if to_right > 0 else -1], True


def _side_data(frame: VideoFrame) -> dict[str, Any]:
    """The frame's side data by the name of its type; types that PyAV does not know have no name and are left out."""
    by_name = {}
    container: Any = frame.side_data  # the hint knows one kind only
    for index in range(len(container)):
        try:
            by_name[container[index].type.name] = container[index]
        except ValueError:
            continue
    return by_name


def _on_white(rgba: Pixels) -> Pixels:
    alpha = rgba[..., 3:].astype(np.uint16)
    composited = (rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return composited.astype(np.uint8)
