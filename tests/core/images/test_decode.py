"""detector_core.images.decode: formats, pixel types, and decompression bombs rejected by their header."""

import struct
import tracemalloc
import zlib
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from detector_core.errors import BadImage, NotAnImage, TooManyPixels, UnsupportedFormat
from detector_core.images import formats
from detector_core.images.decode import decode, opened
from detector_core.images.formats import BUILT_IN as FORMATS
from detector_core.images.segmented import MAX_SCANS
from tests.support.images import encode, noise, png_chunk


@pytest.mark.parametrize("format_", FORMATS)
def test_each_format_is_decoded(format_: str) -> None:
    image_HWC = decode(encode(noise().convert("P") if format_ == "GIF" else noise(), format_))
    assert (image_HWC.shape, image_HWC.dtype) == ((30, 40, 3), np.uint8)


@pytest.mark.parametrize(
    ("image", "format_", "expected"),
    [
        (Image.new("RGBA", (4, 4), (200, 0, 0, 0)), "PNG", (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (200, 0, 0, 255)), "PNG", (200, 0, 0)),
        (Image.new("LA", (4, 4), (0, 128)), "PNG", (127, 127, 127)),
        (Image.new("L", (4, 4), 77), "PNG", (77, 77, 77)),
        (Image.new("1", (4, 4), 1), "PNG", (255, 255, 255)),
        (Image.fromarray(np.full((4, 4), 0x8040, np.uint16)), "PNG", (128, 128, 128)),
        (Image.fromarray(np.full((4, 4), 0x8040, np.uint16)), "TIFF", (128, 128, 128)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF", (255, 0, 0)),
        (Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG", (255, 255, 255)),
    ],
)
def test_other_pixel_types_look_as_in_an_image_viewer(
    image: Image.Image, format_: str, expected: tuple[int, int, int]
) -> None:
    assert decode(encode(image, format_))[1, 1].tolist() == pytest.approx(expected, abs=2)


def test_a_transparent_palette_is_composited_on_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    assert decode(encode(image, "PNG", transparency=0))[0, 0].tolist() == [255, 255, 255]
    assert decode(encode(image, "PNG"))[0, 0].tolist() == [10, 20, 30]


def test_an_image_without_its_palette_is_damaged() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    with pytest.raises(BadImage, match="palette is missing"):
        decode(encode(image, "PNG").replace(b"PLTE", b"pLTE"))


def test_what_the_decoder_asserts_is_damage_too(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(noise(), "PNG")
    monkeypatch.setattr(Image.Image, "convert", Mock(side_effect=AssertionError))
    with pytest.raises(BadImage, match="damaged image: its parts contradict each other"):
        decode(data)


def test_floating_point_images_are_rejected_with_a_reason() -> None:
    with pytest.raises(BadImage, match="8 bits"):
        decode(encode(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_frame_of_an_animation_is_decoded(format_: str) -> None:
    red, blue = Image.new("RGB", (16, 16), (255, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 255))
    data = encode(red, format_, save_all=True, append_images=[blue])
    assert decode(data)[8, 8].tolist() == pytest.approx([255, 0, 0], abs=4)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_exif_orientation_is_applied(format_: str) -> None:
    image = Image.new("RGB", (32, 16), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    image_HWC = decode(encode(image, format_, exif=exif))
    assert image_HWC.shape == (32, 16, 3)
    assert image_HWC[4, 8].mean() > 240
    assert image_HWC[28, 8].mean() < 15


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_bytes_raise_bad_image_or_decode(format_: str) -> None:
    draw = np.random.default_rng(0)
    original = encode(noise(), format_)
    for _ in range(150):
        data = bytearray(original)
        for offset in draw.integers(0, min(400, len(data)), 3):
            data[offset] = draw.integers(256)
        try:
            assert decode(bytes(data)).ndim == 3
        except BadImage:
            continue


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL images cannot be read: save the image as JPEG$"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"8BPS\0\1", "Photoshop"),
    ],
)
def test_the_error_for_another_format_says_what_to_do(head: bytes, message: str) -> None:
    with pytest.raises(UnsupportedFormat, match=message):
        decode(head + b"\0" * 100)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_format_is_identified_by_its_first_bytes(format_: str) -> None:
    image = noise().convert("P") if format_ == "GIF" else noise()
    assert formats.identify(encode(image, format_)[: formats.HEAD_BYTES]) == format_


@pytest.mark.parametrize("data", [b"text", b"%PDF-1.7", b"\0\0\0\x18ftypmp42\0\0\0\0"])
def test_bytes_that_are_not_an_image_are_told_from_damaged_ones(data: bytes) -> None:
    assert formats.identify(data) is None
    with pytest.raises(NotAnImage, match="known formats are JPEG, PNG"):
        decode(data + b"\0" * 100)


def png_bomb(side: int) -> bytes:
    """A black PNG of one bit per pixel, which compresses well."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * (side * (side // 8 + 1)), 9)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


def tiff_with_huge_tiles() -> bytes:
    """A TIFF of 64 x 64 pixels whose header declares tiles of 20,000 x 20,000."""
    data = bytearray(encode(Image.new("L", (64, 64)), "TIFF"))
    (count,) = struct.unpack("<H", data[8:10])
    offset_of_tag = {struct.unpack("<H", data[at : at + 2])[0]: at for at in range(10, 10 + 12 * count, 12)}
    for replaced, tag in ((278, 322), (284, 323)):  # rows per strip, planar configuration -> tile width, tile height
        at = offset_of_tag[replaced]
        data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 20_000)
    return bytes(data)


def bombs() -> dict[str, bytes]:
    """Small files whose headers declare about 100 megapixels or more."""
    side = 10_000
    small = Image.new("L", (300, 200))
    big_endian, little_endian = struct.pack(">HH", 200, 300), struct.pack("<HH", 300, 200)
    files = {
        "PNG": png_bomb(side),
        "JPEG": patched(encode(small, "JPEG"), big_endian, struct.pack(">HH", side, side)),
        "GIF": patched(encode(small, "GIF"), b"GIF87a" + little_endian, b"GIF87a" + struct.pack("<HH", side, side)),
        "BMP": patched(encode(small, "BMP"), struct.pack("<ii", 300, 200), struct.pack("<ii", side, side)),
        "WEBP": patched(
            encode(small.convert("RGB"), "WEBP", quality=50), little_endian, struct.pack("<HH", side, side)
        ),
        "AVIF": patched(encode(small, "AVIF"), struct.pack(">II", 300, 200), struct.pack(">II", side, side)),
        "TIFF": encode(Image.new("1", (side, side)), "TIFF", compression="group4"),
    }
    return files | {"TIFF with huge tiles": tiff_with_huge_tiles()}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", bombs())
def test_a_decompression_bomb_is_rejected_by_its_header(name: str) -> None:
    data = bombs()[name]
    assert len(data) < 200_000
    tracemalloc.start()
    try:
        with pytest.raises(
            TooManyPixels, match=r"^the image has [\d ,x]+ pixels, more than the 50,000,000 allowed: scale"
        ):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_jpeg_with_too_many_scans_is_rejected() -> None:
    data = encode(noise(), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert decode(data).shape == (30, 40, 3)
    with pytest.raises(BadImage, match="scans"):
        decode(data[:-2] + scan * MAX_SCANS + data[-2:])


def test_the_size_is_read_without_decoding() -> None:
    with opened(encode(noise(), "JPEG")[:700]) as image:
        assert (image.width, image.height) == (40, 30)
