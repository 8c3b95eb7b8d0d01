"""detector_core.images.metadata: metadata is removed, and the pixels stay as they are."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector_core.errors import BadImage
from detector_core.images import metadata
from detector_core.images.decode import decode
from tests.support.images import SECRET, encode, noise, personal_image, png_chunk

SUFFIXES = [("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp"), ("AVIF", ".avif"), ("GIF", ".gif"), ("TIFF", ".png")]


def app0(content: bytes) -> bytes:
    """An APP0 segment of a JPEG."""
    return b"\xff\xe0" + (len(content) + 2).to_bytes(2, "big") + content


def comment(content: bytes) -> bytes:
    """A comment segment of a JPEG."""
    return b"\xff\xfe" + (len(content) + 2).to_bytes(2, "big") + content


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("format_", "suffix"), SUFFIXES)
def test_metadata_is_removed_and_the_image_stays(format_: str, suffix: str, orientation: int) -> None:
    data = personal_image(format_, orientation)
    assert SECRET in data
    stripped, new_suffix = metadata.strip(data)
    assert new_suffix == suffix
    assert SECRET not in stripped
    assert np.array_equal(decode(stripped), decode(data))
    with Image.open(io.BytesIO(stripped)) as image:
        keeps_orientation = orientation == 6 and format_ not in ("TIFF", "GIF")
        assert dict(image.getexif()) == ({0x0112: 6} if keeps_orientation else {})


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"subsampling": 0}])
def test_a_jpeg_without_metadata_stays_byte_for_byte(options: dict[str, Any]) -> None:
    data = encode(noise(), "JPEG", quality=70, **options)
    stripped, _ = metadata.strip(data)
    assert stripped == data


def test_bytes_that_are_not_an_image_are_rejected() -> None:
    with pytest.raises(BadImage):
        metadata.strip(b"text")


def test_padding_between_segments_is_removed() -> None:
    plain = encode(noise(), "JPEG")
    stripped, suffix = metadata.strip(plain[:2] + b"\xff\xff" + comment(SECRET) + plain[2:] + SECRET)
    assert (stripped, suffix) == (plain, ".jpg")


def test_a_restart_marker_between_segments_stays() -> None:
    plain = encode(noise(), "JPEG")
    stripped, suffix = metadata.strip(plain[:2] + b"\xff\xd0" + comment(SECRET) + plain[2:] + SECRET)
    assert (stripped, suffix) == (plain[:2] + b"\xff\xd0" + plain[2:], ".jpg")


def malformed_files() -> dict[str, bytes]:
    """Files with a secret that Pillow decodes although they are not well-formed."""
    plain = encode(noise(), "JPEG")
    second_segment = 4 + int.from_bytes(plain[4:6], "big")
    png = encode(noise())
    pixels, header, text = png.index(b"IDAT") - 4, png[:33], png_chunk(b"tEXt", b"Comment\0" + SECRET)
    compressed = png[pixels + 8 : pixels + 8 + int.from_bytes(png[pixels : pixels + 4], "big")][:-4]  # no checksum
    truncated_chunk = png_chunk(b"IDAT", compressed[-2:])[:-4]
    return {
        "JPEG with text between segments": plain[:second_segment] + SECRET + comment(SECRET) + plain[second_segment:],
        "JPEG with zero as a marker": plain[:second_segment]
        + b"\xff\0\xff\0"
        + comment(SECRET)
        + plain[second_segment:]
        + SECRET,
        "PNG truncated after its last pixel": header + text + png_chunk(b"IDAT", compressed[:-2]) + truncated_chunk,
    }


@pytest.mark.parametrize("name", malformed_files())
def test_a_malformed_file_becomes_well_formed(name: str) -> None:
    data, plain = malformed_files()[name], encode(noise(), name.partition(" ")[0])
    assert SECRET in data
    stripped, suffix = metadata.strip(data)
    assert SECRET not in stripped
    assert np.array_equal(decode(stripped), decode(plain))
    if name.startswith("JPEG"):
        assert (stripped, suffix) == (plain, ".jpg")
    else:
        assert (suffix, stripped[-8:-4]) == (".png", b"IEND")


def test_a_webp_keeps_its_size_and_its_compressed_pixels() -> None:
    data = encode(noise(size=(200, 200)), "WEBP", quality=60)
    assert metadata.strip(data) == (data, ".webp")


def test_an_image_that_would_grow_many_times_as_png_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (200, 1))), "TIFF", compression="tiff_lzw")
    assert metadata.strip(data)[1] == ".png"
    monkeypatch.setattr(metadata, "MIN_BYTES", 0)
    monkeypatch.setattr(metadata, "MAX_GROWTH", 0.01)
    with pytest.raises(BadImage, match=r"TIFF image can only be stored as PNG, which is \d+ times as large: save it"):
        metadata.strip(data)


def test_an_image_whose_stripped_form_cannot_be_decoded_is_stored_as_png(monkeypatch: pytest.MonkeyPatch) -> None:
    data = personal_image("JPEG", 6)
    image = decode(data)
    monkeypatch.setitem(metadata._TURN, "JPEG", lambda jpeg, _orientation: jpeg[:40])
    stripped, suffix = metadata.strip(data)
    assert suffix == ".png"
    assert np.array_equal(decode(stripped), image)
    assert SECRET not in stripped


def test_a_scan_without_an_end_of_image_marker_gets_one() -> None:
    plain = encode(noise(), "JPEG")
    stripped, suffix = metadata.strip(plain[:-1] + b"\xd0")
    assert (stripped, suffix) == (plain[:-1] + b"\xd0" + b"\xff\xd9", ".jpg")
    assert np.array_equal(decode(stripped), decode(plain))


@pytest.mark.parametrize("kind", ["in the JFIF header", "in a JFXX segment", "in an old Canon segment"])
def test_thumbnails_and_camera_data_are_removed(kind: str) -> None:
    plain = encode(noise(), "JPEG")
    header, rest = plain[4:20], plain[20:]
    thumbnail = encode(noise(size=(8, 8)), "JPEG", comment=SECRET)
    segments = {
        "in the JFIF header": app0(header[2:14] + bytes([2, 4]) + SECRET.ljust(24)[:24]),
        "in a JFXX segment": plain[2:20] + app0(b"JFXX\0\x10" + thumbnail),
        "in an old Canon segment": plain[2:20] + app0(b"II\x1a\0\0\0HEAPJPGM" + SECRET),
    }
    data = plain[:2] + segments[kind] + rest
    assert SECRET in data
    assert np.array_equal(decode(data), decode(plain))
    assert metadata.strip(data) == (plain, ".jpg")
