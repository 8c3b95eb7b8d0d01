"""Damaged or large metadata does not cost the pixels: detector_core.images.decode reports it and decodes the image."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from detector_core.errors import BadImage
from detector_core.images.decode import decode, decode_file, opened
from tests.support.images import encode, noise, png_chunk

PLAIN = encode(noise())
EXIF_PREFIX = b"Exif\0\0"  # which PNG leaves out
LARGE = bytes(2**21)


def with_chunks(*chunks: bytes, after: bytes = b"IHDR", data: bytes = PLAIN) -> bytes:
    """The file with chunks inserted behind the first chunk of a name."""
    name = data.index(after)
    behind = name + 8 + int.from_bytes(data[name - 4 : name], "big")
    return data[:behind] + b"".join(chunks) + data[behind:]


def wrong_checksum(name: bytes, content: bytes) -> bytes:
    """A chunk whose checksum is not that of its content."""
    chunk = png_chunk(name, content)
    return chunk[:-1] + bytes([chunk[-1] ^ 1])


def exif(orientation: int) -> bytes:
    """EXIF that says how an image is turned."""
    entries = Image.Exif()
    entries[0x0112], entries[0x010E] = orientation, "description"
    return entries.tobytes().removeprefix(EXIF_PREFIX)


DAMAGED = {
    "wrong checksum of a text": with_chunks(wrong_checksum(b"tEXt", b"Comment\0text")),
    "wrong checksum of the resolution": with_chunks(wrong_checksum(b"pHYs", struct.pack(">IIB", 2835, 2835, 1))),
    "wrong checksum of a text behind the pixels": with_chunks(wrong_checksum(b"tEXt", b"a\0b"), after=b"IDAT"),
    "EXIF that is none": with_chunks(png_chunk(b"eXIf", b"garbage")),
    "EXIF with a wrong checksum": with_chunks(wrong_checksum(b"eXIf", exif(6))),
    "large EXIF": with_chunks(png_chunk(b"eXIf", exif(6) + LARGE)),
    "text that is large when unpacked": with_chunks(png_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(LARGE))),
    "international text that is large when unpacked": with_chunks(
        png_chunk(b"iTXt", b"workflow\0\1\0en\0\0" + zlib.compress(LARGE))
    ),
    "color profile that is large when unpacked": with_chunks(png_chunk(b"iCCP", b"ICC\0\0" + zlib.compress(LARGE))),
    "large text": with_chunks(png_chunk(b"tEXt", b"Comment\0" + LARGE)),
    "packed text that cannot be unpacked": with_chunks(png_chunk(b"zTXt", b"a\0\0not compressed")),
    "many texts that are large together": with_chunks(
        *[png_chunk(b"zTXt", b"a\0\0" + zlib.compress(LARGE[: 2**20]))] * 5
    ),
}
SOUND = {
    "texts": with_chunks(
        png_chunk(b"tEXt", b"Comment\0text"),
        png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"text")),
        png_chunk(b"iTXt", b"Comment\0\0\0en\0\0text"),
        png_chunk(b"iTXt", b"Comment\0\1\0en\0\0" + zlib.compress(b"text")),
    ),
    "short gamma and resolution": with_chunks(png_chunk(b"gAMA", b"\0"), png_chunk(b"pHYs", b"")),
    "unknown method of compression": with_chunks(png_chunk(b"zTXt", b"a\0\7" + zlib.compress(b"text"))),
    "an unknown chunk": with_chunks(png_chunk(b"caBX", b"provenance")),
    "bytes behind the end": PLAIN + b"hello",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_or_large_metadata_is_dropped_and_reported(name: str) -> None:
    decoded = decode_file(DAMAGED[name])
    assert np.array_equal(decoded.image_HWC, np.asarray(noise()))
    assert not decoded.metadata_intact
    with opened(DAMAGED[name]) as image:
        assert (image.width, image.height) == noise().size


@pytest.mark.parametrize("name", SOUND)
def test_other_metadata_is_dropped_without_a_report(name: str) -> None:
    decoded = decode_file(SOUND[name])
    assert np.array_equal(decoded.image_HWC, np.asarray(noise()))
    assert decoded.metadata_intact


def test_exif_still_turns_the_image() -> None:
    decoded = decode_file(with_chunks(png_chunk(b"eXIf", exif(6))))
    assert np.array_equal(decoded.image_HWC, np.rot90(np.asarray(noise()), -1))
    assert decoded.metadata_intact


@pytest.mark.parametrize("format_", ["JPEG", "WEBP", "AVIF"])
def test_damaged_exif_of_other_formats_does_not_cost_the_pixels(format_: str) -> None:
    data = bytearray(encode(noise(), format_, exif=EXIF_PREFIX + exif(6)))
    assert decode(bytes(data)).shape == (40, 30, 3)
    start = data.rindex(b"MM\0*")
    data[start : start + 4] = b"XXXX"
    decoded = decode_file(bytes(data))
    upright = format_ == "AVIF"  # which says itself, outside of EXIF, how it is turned
    assert decoded.image_HWC.shape == ((40, 30, 3) if upright else (30, 40, 3))
    assert decoded.metadata_intact == upright


@pytest.mark.parametrize("name", [b"IDAT", b"tRNS"])
def test_damaged_pixels_are_still_refused(name: bytes) -> None:
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30])
    data = bytearray(encode(palette, transparency=0))
    data[data.index(name) + 4] ^= 0xFF
    with pytest.raises(BadImage, match="damaged image"):
        decode(bytes(data))


@pytest.mark.parametrize("end", [8, 20, 40, 60, -40])
def test_a_file_that_ends_early_is_refused(end: int) -> None:
    with pytest.raises(BadImage, match="damaged image"):
        decode(with_chunks(png_chunk(b"tEXt", b"Comment\0text"))[:end])


def test_a_file_of_very_many_chunks_is_refused() -> None:
    with pytest.raises(BadImage, match="more than 100,000 chunks"):
        decode(with_chunks(png_chunk(b"tEXt", b"") * 200_000))


@pytest.mark.parametrize("format_", ["PNG", "GIF", "WEBP", "AVIF", "TIFF"])
def test_an_animation_is_told_from_a_still(format_: str) -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue", "lime")]
    animated = decode_file(encode(frames[0], format_, save_all=True, append_images=frames[1:]))
    assert animated.animated
    assert animated.image_HWC[8, 8].tolist() == pytest.approx([255, 0, 0], abs=4)
    assert not decode_file(encode(frames[0], format_)).animated


def test_the_depth_map_of_a_phone_is_no_animation() -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    assert not decode_file(encode(frames[0], "MPO", save_all=True, append_images=frames[1:])).animated
