"""detector_core.images.display: a frame as a player shows it, or a warning that it is shown differently."""

import io
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from detector_core.images import display, video, video_decoder
from detector_core.images.video import Frame
from tests.support.clips import gray, held_frames, make_clip, quadrants, with_clean_aperture, with_display_matrix


def first_frame(data: bytes) -> Frame:
    return next(video.sample_frames(data, 1, max_s=60).frames)


STILL = held_frames([(0, quadrants())], 1000)
TURNS: dict[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]] = {
    (1, 0, 0, 1): lambda pixels: pixels,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (-1, 0, 0, -1): lambda pixels: np.rot90(pixels, 2),
    (0, 1, -1, 0): lambda pixels: np.rot90(pixels, -1),
    (0, -1, 1, 0): np.rot90,
    (0, 1, 1, 0): lambda pixels: pixels.swapaxes(0, 1),
    (0, -1, -1, 0): lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
}


@pytest.mark.parametrize("matrix", TURNS)
def test_a_clip_is_turned_and_mirrored_as_its_container_says(matrix: tuple[int, int, int, int]) -> None:
    frame = first_frame(with_display_matrix(STILL, *matrix))
    expected = TURNS[matrix](quadrants())
    assert frame.image_HWC.shape == expected.shape
    assert np.abs(frame.image_HWC.astype(int) - expected).mean() < 4
    assert frame.warnings == ()


@pytest.mark.parametrize("matrix", [(0.7071, 0.7071, -0.7071, 0.7071), (1, 0.5, 0, 1)])
def test_another_transformation_gets_a_warning(matrix: tuple[float, float, float, float]) -> None:
    frame = first_frame(with_display_matrix(STILL, *matrix))
    assert frame.warnings == ("not_as_shown",)


@pytest.mark.parametrize(
    ("aspect", "shape", "warnings"),
    [
        (Fraction(3, 2), (48, 96, 3), ()),
        (Fraction(1, 2), (96, 64, 3), ()),
        (Fraction(1), (48, 64, 3), ()),
        (Fraction(9), (48, 64, 3), ("not_as_shown",)),
    ],
)
def test_pixels_that_are_not_square_are_stretched(
    aspect: Fraction, shape: tuple[int, ...], warnings: tuple[str, ...]
) -> None:
    frame = first_frame(held_frames([(0, quadrants())], 1000, sample_aspect_ratio=aspect))
    assert (frame.image_HWC.shape, frame.warnings) == (shape, warnings)
    corners = frame.image_HWC[np.ix_([4, -4], [4, -4], [0])][..., 0].astype(int)
    assert np.abs(corners - [[0, 85], [170, 255]]).max() < 12


@pytest.mark.parametrize(("shown", "warnings"), [((64, 48), ()), ((32, 24), ("not_as_shown",))])
def test_a_clip_of_which_a_part_is_shown_gets_a_warning(shown: tuple[int, int], warnings: tuple[str, ...]) -> None:
    frame = first_frame(with_clean_aperture(make_clip(3), *shown))
    assert frame.image_HWC.shape == (48, 64, 3)
    assert frame.warnings == warnings


@pytest.mark.parametrize("element", [b"\x54\xaa", b"\x54\xbb", b"\x54\xcc", b"\x54\xdd"])
@pytest.mark.parametrize(("pixels", "warnings"), [(b"\0", ()), (b"\x10", ("not_as_shown",))])
def test_a_matroska_clip_of_which_a_part_is_shown_gets_a_warning(
    element: bytes, pixels: bytes, warnings: tuple[str, ...]
) -> None:
    clip = make_clip(3, container="matroska")
    display_unit = b"\x54\xb2\x81\x04"  # as long as the element that takes its place
    assert clip.count(display_unit) == 1
    frame = first_frame(clip.replace(display_unit, element + b"\x81" + pixels))
    assert frame.image_HWC.shape == (48, 64, 3)
    assert frame.warnings == warnings


def test_pixels_are_not_stretched_beyond_the_largest_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    data = held_frames([(0, quadrants())], 1000, sample_aspect_ratio=Fraction(2))
    monkeypatch.setattr(video_decoder, "MAX_PIXELS", 64 * 48)
    frame = first_frame(data)
    assert (frame.image_HWC.shape, frame.warnings) == ((48, 64, 3), ("not_as_shown",))


@pytest.mark.parametrize("color_range", [ColorRange.MPEG, ColorRange.JPEG])
def test_the_declared_range_of_values_is_applied(color_range: ColorRange) -> None:
    """The same bytes are shown with more contrast if their range is the limited one."""
    levels = [first_frame(held_frames([(0, gray(level))], 1000, color_range=color_range)) for level in (60, 200)]
    low, high = (float(frame.image_HWC.mean()) for frame in levels)
    full = first_frame(held_frames([(0, gray(60))], 1000))
    assert float(full.image_HWC.mean()) == pytest.approx(60, abs=2)
    expected = (60, 200) if color_range == ColorRange.MPEG else (16 + 60 * 219 / 255, 16 + 200 * 219 / 255)
    assert (low, high) == pytest.approx(expected, abs=2)


GREEN = (40, 160, 70)


@pytest.mark.parametrize(
    ("size", "declared", "encoded_as"),
    [
        ((64, 48), None, Colorspace.ITU601),
        ((1280, 720), None, Colorspace.ITU709),
        ((64, 48), Colorspace.ITU709, Colorspace.ITU709),
        ((1280, 720), Colorspace.ITU601, Colorspace.ITU601),
    ],
)
def test_colors_are_those_of_a_player(
    size: tuple[int, int], declared: Colorspace | None, encoded_as: Colorspace
) -> None:
    pixels = np.full((size[1], size[0], 3), GREEN, np.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p", dst_colorspace=encoded_as)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=10, options={"qp": "4", "preset": "ultrafast"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        if declared is not None:
            stream.codec_context.colorspace = declared
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    shown = first_frame(buffer.getvalue())
    assert shown.image_HWC.mean(axis=(0, 1)) == pytest.approx(GREEN, abs=4)
    assert shown.warnings == ()


@pytest.mark.parametrize(
    "options",
    [
        {"color_trc": ColorTrc.SMPTE2084},
        {"color_trc": ColorTrc.ARIB_STD_B67},
        {"color_primaries": ColorPrimaries.SMPTE432},
    ],
    ids=["PQ", "HLG", "P3"],
)
def test_colors_of_other_displays_get_a_warning(options: dict[str, int]) -> None:
    assert first_frame(held_frames([(0, gray(100))], 1000, **options)).warnings == ("not_as_shown",)


def test_interlaced_frames_get_a_warning() -> None:
    interlaced = make_clip(3, **{"x264-params": "tff=1"})
    assert first_frame(interlaced).warnings == ("not_as_shown",)


def test_transparent_pixels_are_white() -> None:
    rgba = np.full((48, 64, 4), (200, 40, 40, 255), np.uint8)
    rgba[:, 32:, 3] = 0
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mov") as output:
        stream = output.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgba"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba")))
        output.mux(stream.encode())
    frame = first_frame(buffer.getvalue())
    assert frame.image_HWC[10, 10].tolist() == [200, 40, 40]
    assert frame.image_HWC[10, 50].tolist() == [255, 255, 255]


def test_transparency_that_the_decoder_leaves_out_gets_a_warning() -> None:
    """VP8 and VP9 keep it in a second stream of frames, within the first."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as output:
        stream = output.add_stream("libvpx-vp9", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.metadata["alpha_mode"] = "1"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(quadrants(), format="rgb24")))
        output.mux(stream.encode())
    assert first_frame(buffer.getvalue()).warnings == ("not_as_shown",)


def test_side_data_of_a_kind_that_pyav_does_not_know_is_left_out() -> None:
    class Unknown:
        @property
        def type(self) -> None:
            raise ValueError("99 is not a valid Type")

    known = SimpleNamespace(type=SimpleNamespace(name="DISPLAYMATRIX"))
    frame: Any = SimpleNamespace(side_data=[Unknown(), known])
    assert display._side_data(frame) == {"DISPLAYMATRIX": known}


def two_streams(*, cover: bool) -> bytes:
    """A clip with a dark stream and, before it, a light one, which may be a cover picture."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        codec = "mjpeg" if cover else "libx264"
        streams = [output.add_stream(codec, rate=10), output.add_stream("libx264", rate=10)]
        for stream in streams:
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuvj420p" if stream is streams[0] and cover else "yuv420p"
        if cover:
            streams[0].disposition = av.stream.Disposition.attached_pic
        for stream, level, count in zip(streams, (220, 30), (1 if cover else 3, 3), strict=True):
            for _ in range(count):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(gray(level), format="rgb24")))
            output.mux(stream.encode())
    return buffer.getvalue()


def test_a_second_picture_track_gets_a_warning() -> None:
    assert first_frame(two_streams(cover=False)).warnings == ("not_as_shown",)


def test_a_cover_picture_is_not_the_clip() -> None:
    frame = first_frame(two_streams(cover=True))
    assert frame.image_HWC.mean() == pytest.approx(30, abs=3)
    assert frame.warnings == ()
