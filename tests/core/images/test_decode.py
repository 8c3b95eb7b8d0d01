"""detector_core.images.decode: kinds of images, bombs refused from their header, and
detector_core.images.metadata."""

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from detector_core.errors import BadImage, TooManyPixels, UnsupportedFormat
from detector_core.images import metadata
from detector_core.images.decode import FORMATS, MAX_SCANS, decode, read_size

SECRET = b"at home"


def saved(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0], channels) if channels > 1 else (size[1], size[0])
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels) if mode != "CMYK" else Image.frombytes("CMYK", size, pixels.tobytes())


@pytest.mark.parametrize("format_", FORMATS)
def test_each_format_is_read_whatever_it_is_called(format_: str) -> None:
    found = decode(saved(noise().convert("P") if format_ == "GIF" else noise(), format_))
    assert (found.shape, found.dtype) == ((30, 40, 3), np.uint8)


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
def test_other_kinds_of_pixels_are_what_a_viewer_shows(
    image: Image.Image, format_: str, expected: tuple[int, int, int]
) -> None:
    assert decode(saved(image, format_))[1, 1].tolist() == pytest.approx(expected, abs=2)


def test_a_transparent_palette_is_laid_on_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    assert decode(saved(image, "PNG", transparency=0))[0, 0].tolist() == [255, 255, 255]
    assert decode(saved(image, "PNG"))[0, 0].tolist() == [10, 20, 30]


def test_floating_point_is_refused_with_a_reason() -> None:
    with pytest.raises(BadImage, match="8 bits"):
        decode(saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_is_taken(format_: str) -> None:
    red, blue = Image.new("RGB", (16, 16), (255, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 255))
    data = saved(red, format_, save_all=True, append_images=[blue])
    assert decode(data)[8, 8].tolist() == pytest.approx([255, 0, 0], abs=4)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_orientation_is_applied(format_: str) -> None:
    image = Image.new("RGB", (32, 16), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decode(saved(image, format_, exif=exif))
    assert found.shape == (32, 16, 3)
    assert found[4, 8].mean() > 240
    assert found[28, 8].mean() < 15


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_bytes_are_bad_and_nothing_else(format_: str) -> None:
    draw = np.random.default_rng(0)
    original = saved(noise(), format_)
    for _ in range(150):
        data = bytearray(original)
        for place in draw.integers(0, min(400, len(data)), 3):
            data[place] = draw.integers(256)
        try:
            assert decode(bytes(data)).ndim == 3
        except BadImage:
            continue


def test_heic_is_named_and_says_what_to_do() -> None:
    with pytest.raises(UnsupportedFormat, match="save it as JPEG"):
        decode(struct.pack(">I", 24) + b"ftypheic" + b"\0\0\0\0mif1heic" + b"\0" * 100)


def chunk(name: bytes, data: bytes) -> bytes:
    """One of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bomb(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * (side * (side // 8 + 1)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


def bombs() -> dict[str, bytes]:
    """Small files whose headers state about 100 megapixels or more."""
    side = 10_000
    small = Image.new("L", (300, 200))
    be, le = struct.pack(">HH", 200, 300), struct.pack("<HH", 300, 200)
    tiled = saved(Image.new("L", (64, 64)), "TIFF")
    count = struct.unpack("<H", tiled[8:10])[0] if struct.unpack("<I", tiled[4:8])[0] == 8 else 0
    found = {
        "PNG": png_bomb(side),
        "JPEG": patched(saved(small, "JPEG"), be, struct.pack(">HH", side, side)),
        "GIF": patched(saved(small, "GIF"), b"GIF87a" + le, b"GIF87a" + struct.pack("<HH", side, side)),
        "BMP": patched(saved(small, "BMP"), struct.pack("<ii", 300, 200), struct.pack("<ii", side, side)),
        "WEBP": patched(saved(small.convert("RGB"), "WEBP", quality=50), le, struct.pack("<HH", side, side)),
        "AVIF": patched(saved(small, "AVIF"), struct.pack(">II", 300, 200), struct.pack(">II", side, side)),
        "TIFF": saved(Image.new("1", (side, side)), "TIFF", compression="group4"),
    }
    if count:
        tags = {struct.unpack("<H", tiled[10 + 12 * n : 12 + 12 * n])[0]: 10 + 12 * n for n in range(count)}
        rows, planes = tags[278], tags.get(284)
        data = bytearray(tiled)
        data[rows : rows + 12] = struct.pack("<HHII", 322, 4, 1, 20_000)
        if planes:
            data[planes : planes + 12] = struct.pack("<HHII", 323, 4, 1, 20_000)
            found["TIFF with huge tiles"] = bytes(data)
    return found


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", bombs())
def test_a_bomb_is_refused_from_its_header(name: str) -> None:
    data = bombs()[name]
    assert len(data) < 200_000
    tracemalloc.start()
    try:
        with pytest.raises(TooManyPixels):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = saved(noise(), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert decode(data).shape == (30, 40, 3)
    with pytest.raises(BadImage, match="scans"):
        decode(data[:-2] + scan * MAX_SCANS + data[-2:])


def test_the_size_is_read_without_decoding() -> None:
    assert read_size(saved(noise(), "JPEG")[:700]) == (40, 30)


def personal(format_: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, SECRET.decode()
    exif.get_ifd(0x8825)[2] = (48.0, 12.0, 30.0)
    options: dict[str, Any] = {"exif": exif.tobytes()}
    if format_ == "JPEG":
        options |= {"comment": SECRET, "quality": 80, "icc_profile": SECRET * 10}
    if format_ == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", SECRET.decode())
        options["pnginfo"] = text
    return saved(noise(), format_, **options) + SECRET


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("format_", "suffix"), [("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".png"), ("TIFF", ".png")])
def test_metadata_goes_and_the_image_stays(format_: str, suffix: str, orientation: int) -> None:
    data = personal(format_, orientation)
    assert SECRET in data
    bare, found = metadata.strip(data)
    assert found == suffix
    assert SECRET not in bare
    assert np.array_equal(decode(bare), decode(data))
    with Image.open(io.BytesIO(bare)) as image:
        assert dict(image.getexif()) == ({0x0112: 6} if (orientation, suffix) == (6, ".jpg") else {})


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"subsampling": 0}])
def test_the_traces_of_a_jpeg_stay_byte_for_byte(options: dict[str, Any]) -> None:
    data = saved(noise(), "JPEG", quality=70, **options)
    bare, _ = metadata.strip(data)
    assert bare == data


def test_what_is_no_image_is_not_stripped() -> None:
    with pytest.raises(BadImage):
        metadata.strip(b"text")


@pytest.mark.parametrize("between", [b"\xff\xff", b"\xff\xd0"], ids=["padding", "a restart"])
def test_what_stands_alone_between_two_segments_is_followed(between: bytes) -> None:
    plain = saved(noise(), "JPEG")
    comment = b"\xff\xfe" + (len(SECRET) + 2).to_bytes(2, "big") + SECRET
    bare, suffix = metadata.strip(plain[:2] + between + comment + plain[2:] + SECRET)
    assert (bare.replace(b"\xff\xd0", b"", 1) if between == b"\xff\xd0" else bare, suffix) == (plain, ".jpg")


def not_followed() -> dict[str, bytes]:
    """Files that Pillow reads and that are not quite what their format says, each with a secret in it."""
    plain = saved(noise(), "JPEG")
    first = 4 + int.from_bytes(plain[4:6], "big")
    said = b"\xff\xfe" + (len(SECRET) + 2).to_bytes(2, "big") + SECRET
    png = saved(noise())
    pixels, header, text = png.index(b"IDAT") - 4, png[:33], chunk(b"tEXt", b"Comment\0" + SECRET)
    packed = png[pixels + 8 : pixels + 8 + int.from_bytes(png[pixels : pixels + 4], "big")][:-4]  # without its checksum
    cut = chunk(b"IDAT", packed[-2:])[:-4]
    return {
        "JPEG with words between segments": plain[:first] + SECRET + said + plain[first:],
        "JPEG with a zero for a marker": plain[:first] + b"\xff\0\xff\0" + said + plain[first:] + SECRET,
        "PNG cut off behind its last pixel": header + text + chunk(b"IDAT", packed[:-2]) + cut,
    }


@pytest.mark.parametrize("name", not_followed())
def test_a_file_that_cannot_be_followed_is_stored_anew(name: str) -> None:
    data = not_followed()[name]
    assert SECRET in data
    bare, suffix = metadata.strip(data)
    assert (SECRET in bare, suffix, bare[-8:-4]) == (False, ".png", b"IEND")
    assert np.array_equal(decode(bare), decode(data))
    assert np.array_equal(decode(bare), decode(saved(noise(), "JPEG" if "JPEG" in name else "PNG")))


def test_a_scan_without_its_end_gets_one() -> None:
    plain = saved(noise(), "JPEG")
    bare, suffix = metadata.strip(plain[:-1] + b"\xd0")
    assert (bare, suffix) == (plain[:-1] + b"\xd0" + b"\xff\xd9", ".jpg")
    assert np.array_equal(decode(bare), decode(plain))


def app0(said: bytes) -> bytes:
    """A segment."""
    return b"\xff\xe0" + (len(said) + 2).to_bytes(2, "big") + said


@pytest.mark.parametrize("kind", ["in the header", "behind it", "Canon's words"])
def test_what_the_image_was_before_it_was_cut_goes(kind: str) -> None:
    """A thumbnail in JFIF's own header, or a JPEG in a segment of its own; what an old camera says."""
    plain = saved(noise(), "JPEG")
    header, rest = plain[4:20], plain[20:]
    small = saved(noise(size=(8, 8)), "JPEG", comment=SECRET)
    segments = {
        "in the header": app0(header[2:14] + bytes([2, 4]) + SECRET.ljust(24)[:24]),
        "behind it": plain[2:20] + app0(b"JFXX\0\x10" + small),
        "Canon's words": plain[2:20] + app0(b"II\x1a\0\0\0HEAPJPGM" + SECRET),
    }
    data = plain[:2] + segments[kind] + rest
    assert np.array_equal(decode(data), decode(plain))
    assert metadata.strip(data) == (plain, ".jpg")
