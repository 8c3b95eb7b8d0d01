"""detector_core.images.structure: what is left of a file, what few bytes may cost, and damage that must not matter."""

import io
import struct
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector_core.errors import BadImage, UnsupportedFormat
from detector_core.images import segmented
from detector_core.images.decode import decode, decode_file
from detector_core.images.formats import BUILT_IN as FORMATS
from detector_core.images.image_file import MAX_PARTS, read_orientation, write_orientation
from detector_core.images.structure import reduce
from tests.support.attacks import CountingBytes, avif_of_items, avif_with_many_items, jpeg_segment, repeated_scans
from tests.support.images import SECRET, encode, noise, personal_image, png_chunk

PLAIN = encode(noise())
BROKEN_EXIF = b"Exif\0\0II*\0" + b"\xff" * 40
AFTER_IHDR = 33


def with_chunks(*chunks: bytes, at: int = AFTER_IHDR) -> bytes:
    """The PNG of noise with more chunks."""
    return PLAIN[:at] + b"".join(chunks) + PLAIN[at:]


def damaged_metadata() -> dict[str, tuple[bytes, bytes, bool]]:
    """Name -> a file with damaged metadata, the same without it, and whether the damage is noticed."""
    jpeg, webp = encode(noise(), "JPEG"), encode(noise(), "WEBP", lossless=True)
    return {
        "JPEG EXIF": (jpeg[:2] + jpeg_segment(0xE1, BROKEN_EXIF) + jpeg[2:], jpeg, True),
        "JPEG list of images": (jpeg[:2] + jpeg_segment(0xE2, b"MPF\0garbage") + jpeg[2:], jpeg, False),
        "WebP EXIF": (encode(noise(), "WEBP", lossless=True, exif=BROKEN_EXIF), webp, True),
        "WebP color profile": (encode(noise(), "WEBP", lossless=True, icc_profile=b"garbage"), webp, False),
        "PNG EXIF": (with_chunks(png_chunk(b"eXIf", BROKEN_EXIF[6:])), PLAIN, True),
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", damaged_metadata())
def test_damaged_metadata_does_not_matter(name: str) -> None:
    data, plain, noticed = damaged_metadata()[name]
    assert (decode(data) == decode(plain)).all()
    assert (decode_file(data).metadata_intact, decode_file(plain).metadata_intact) == (not noticed, True)


@pytest.mark.parametrize("format_", [format_ for format_ in FORMATS if format_ not in ("BMP", "TIFF")])
def test_a_reduced_file_has_its_pixels_and_nothing_else(format_: str) -> None:
    data = personal_image(format_, 6)
    file = reduce(data)
    assert file.format == format_
    assert SECRET not in file.data
    assert reduce(file.data).data == file.data
    turned = np.rot90(decode(file.data), -1) if file.orientation == 6 else decode(file.data)
    assert (turned == decode(data)).all()
    assert file.metadata_bytes > 0


@pytest.mark.parametrize("format_", FORMATS)
def test_a_plain_file_without_metadata_loses_nothing(format_: str) -> None:
    data = encode(noise().convert("P") if format_ == "GIF" else noise(), format_)
    assert reduce(reduce(data).data).data == reduce(data).data
    assert (decode(reduce(data).data) == decode(data)).all()
    if format_ in ("PNG", "WEBP", "GIF", "BMP"):
        assert reduce(data).data == data


def kinds() -> dict[str, tuple[bytes, bool]]:
    """Name -> a file, and whether it is plain."""
    color, gray, transparent = noise(), noise().convert("L"), noise().convert("RGBA")
    transparent.putalpha(gray)
    return {
        "JPEG": (encode(color, "JPEG"), True),
        "gray JPEG with metadata": (encode(gray, "JPEG", exif=write_orientation(6), comment=SECRET), True),
        "JPEG of a phone": (encode(color, "MPO", save_all=True, append_images=[color]), True),
        "progressive JPEG": (encode(color, "JPEG", progressive=True), False),
        "JPEG of two scans": (two_scans(), False),
        "JPEG without a scan": (encode(color, "JPEG")[:300], False),
        "PNG": (PLAIN, True),
        "transparent PNG": (encode(transparent), True),
        "lossy WebP": (encode(color, "WEBP"), True),
        "lossless WebP": (encode(color, "WEBP", lossless=True), False),
        "transparent WebP": (encode(transparent, "WEBP"), False),
        "animated WebP": (encode(color, "WEBP", save_all=True, append_images=[gray]), False),
        "GIF": (encode(color, "GIF"), False),
        "AVIF": (encode(color, "AVIF"), False),
        "BMP": (encode(color, "BMP"), False),
        "TIFF": (encode(color, "TIFF"), False),
    }


def two_scans() -> bytes:
    """A baseline JPEG whose scan is repeated."""
    data = encode(noise(), "JPEG")
    return data[:-2] + data[data.index(b"\xff\xda") :]


@pytest.mark.parametrize("name", kinds())
def test_plain_are_files_that_cost_no_more_than_their_pixels_and_bytes_justify(name: str) -> None:
    data, plain = kinds()[name]
    assert reduce(data).is_plain == plain


@pytest.mark.parametrize("format_", FORMATS)
def test_a_format_that_is_not_accepted_is_refused_by_name(format_: str) -> None:
    data = encode(noise(), format_)
    others = [other for other in FORMATS if other != format_]
    with pytest.raises(UnsupportedFormat, match=f"{format_} images are not accepted here: save .* {others[0]}, "):
        decode_file(data, accepted=others)
    assert decode_file(data, accepted=[format_]).image_HWC.shape == (30, 40, 3)


@pytest.mark.parametrize(
    ("brands", "expected"),
    [([b"avif"], "AVIF"), ([b"avis", b"msf1"], "AVIF"), ([b"mif1", b"avif"], "AVIF"), ([b"heic", b"mif1"], "HEIC")],
)
def test_brands_tell_avif_from_heic(brands: list[bytes], expected: str) -> None:
    first, *compatible = brands
    box = b"ftyp" + first + b"\0\0\0\0" + b"".join(compatible)
    data = struct.pack(">I", len(box) + 4) + box
    assert reduce(data).format == expected


@pytest.mark.parametrize("value", [*range(1, 9), 0, 9, 300])
@pytest.mark.parametrize("kind", ["SHORT", "LONG", "BYTE"])
@pytest.mark.parametrize("order", ["little", "big"])
def test_orientation_is_read_as_pillow_reads_it(value: int, kind: str, order: Any) -> None:
    number, size = {"BYTE": (1, 1), "SHORT": (3, 2), "LONG": (4, 4)}[kind]
    value %= 256**size
    entries = [(0x010E, 2, b"abc\0"), (0x0112, number, value.to_bytes(size, order).ljust(4, b"\0"))]
    exif = (b"II*\0" if order == "little" else b"MM\0*") + (8).to_bytes(4, order) + (2).to_bytes(2, order)
    for tag, of, content in entries:
        exif += tag.to_bytes(2, order) + of.to_bytes(2, order) + (4 if of == 2 else 1).to_bytes(4, order) + content
    exif += bytes(4)
    pillow = Image.Exif()
    pillow.load(exif)
    assert pillow[0x0112] == value or kind == "BYTE"  # which Pillow returns as bytes
    assert read_orientation(exif) == read_orientation(b"Exif\0\0" + exif) == (value if 1 <= value <= 8 else 1)


@pytest.mark.parametrize("value", range(1, 9))
def test_a_written_orientation_is_read_by_pillow(value: int) -> None:
    pillow = Image.Exif()
    pillow.load(write_orientation(value))
    assert dict(pillow) == {0x0112: value}
    assert read_orientation(write_orientation(value)) == value


@pytest.mark.parametrize("exif", [b"", b"text", b"II*\0", b"II*\0\xff\xff\xff\xff", write_orientation(6)[:12]])
def test_exif_that_is_cut_off_is_damaged(exif: bytes) -> None:
    assert read_orientation(exif) is None


def test_exif_without_an_orientation_is_upright() -> None:
    assert read_orientation(b"II*\0\x08\0\0\0\0\0") == 1
    other_kind = write_orientation(6).replace(b"\0\3\0\0\0\1", b"\0\7\0\0\0\1")
    assert read_orientation(other_kind) == 1


def test_scans_are_counted_within_the_image_and_in_other_formats_of_the_same_bytes() -> None:
    jpeg = encode(noise(), "JPEG", progressive=True)
    image = noise()
    mpo = encode(image, "MPO", save_all=True, append_images=[image], progressive=True)
    for data in (jpeg, mpo):
        assert decode(repeated_scans(data, 50)).shape == (30, 40, 3)
        with pytest.raises(BadImage, match="too many scans for its size"):
            decode(repeated_scans(data, segmented.MAX_SCANS))


def test_what_follows_a_jpeg_is_not_counted() -> None:
    data = encode(noise(), "JPEG") + b"\xff\xda" * 1000
    assert (decode(data) == decode(encode(noise(), "JPEG"))).all()
    thumbnail = jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"\xff\xda" * 1000)
    assert decode(data[:2] + thumbnail + data[2:]).shape == (30, 40, 3)


def test_a_large_jpeg_may_have_fewer_scans_than_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    data = repeated_scans(encode(noise(), "JPEG", progressive=True), 50)
    monkeypatch.setattr(segmented, "MAX_SCAN_PIXELS", 50 * 40 * 30)
    with pytest.raises(BadImage, match="too many scans"):
        decode(data)


def test_a_jpeg_with_two_sizes_is_rejected() -> None:
    data = encode(noise(), "JPEG")
    header = data.index(b"\xff\xc0")
    frame = data[header : header + 2 + int.from_bytes(data[header + 2 : header + 4], "big")]
    with pytest.raises(BadImage, match="more than one frame header"):
        decode(data[:header] + frame + data[header:])


def many_parts() -> dict[str, bytes]:
    """Files of a million bytes or fewer with more parts than any decoder should look at."""
    jpeg, gif, webp = (encode(noise().convert("P").convert("RGB"), format_) for format_ in ("JPEG", "GIF", "WEBP"))
    screen = gif.index(b",") - 8  # the graphic control block, or the end of the color table
    return {
        "JPEG": jpeg[:2] + jpeg_segment(0xFE, b"") * MAX_PARTS + jpeg[2:],
        "PNG": with_chunks(png_chunk(b"tEXt", b"") * MAX_PARTS),
        "WEBP": b"RIFF\xff\xff\xff\0WEBP" + b"abcd\0\0\0\0" * MAX_PARTS + webp[12:],
        "GIF extensions": gif[:13] + b"!\xfe\0" * MAX_PARTS + gif[screen:]
        if not gif[10] & 0x80
        else gif[: 13 + (3 << ((gif[10] & 7) + 1))] + b"!\xfe\0" * MAX_PARTS + gif[screen:],
        "GIF sub-blocks": gif[: 13 + (3 << ((gif[10] & 7) + 1))] + b"!\xfe" + b"\1x" * MAX_PARTS + b"\0" + gif[screen:],
        "AVIF": encode(noise(), "AVIF") + b"\0\0\0\x08free" * MAX_PARTS,
    }


@pytest.mark.parametrize("name", many_parts())
def test_too_many_parts_are_rejected_quickly(name: str) -> None:
    data = many_parts()[name]
    assert len(data) < 1_500_000
    before = time.process_time()
    with pytest.raises(BadImage, match=r"more than 100,000 |too many"):
        decode(data)
    assert time.process_time() - before < 2


def test_of_a_gif_the_first_frame_with_its_transparency_is_kept() -> None:
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    palette.paste(0, (0, 0, 4, 8))
    data = encode(
        palette, "GIF", transparency=0, save_all=True, append_images=[Image.new("P", (8, 8), 0)], comment=SECRET
    )
    file = reduce(data)
    assert len(file.data) < len(data)
    assert SECRET not in file.data
    assert decode(data)[4, 2].tolist() == [255, 255, 255]
    assert decode(data)[4, 6].tolist() == [200, 100, 50]
    with pytest.raises(BadImage):
        decode(data[: data.index(b",") + 30])
    with pytest.raises(BadImage, match="no frame"):
        decode(data[: data.index(b",")])


def test_an_avif_that_lists_more_than_it_has_is_rejected_quickly() -> None:
    before = time.process_time()
    for items, extents in ((2**16 - 1, 0), (2, 2**16 - 1)):
        with pytest.raises(BadImage):
            decode(avif_with_many_items(encode(noise(), "AVIF"), items, extents))
    assert time.process_time() - before < 1


def test_an_avif_in_many_boxes_costs_no_more_than_its_bytes() -> None:
    """Each of many lists of items, or boxes of data, could refer to the whole file."""
    data = avif_of_items(b"av01", 1000, b"image", containers=1000)
    counting = CountingBytes(data)
    assert len(reduce(counting).data) == len(data)
    assert counting.read < 10 * len(data)
    with pytest.raises(BadImage, match="it has two lists of items, where a file has one"):
        reduce(data + data[data.index(b"meta") - 4 :])


def test_of_the_data_of_an_avif_only_its_items_stay() -> None:
    """An item may lie in two boxes, and what it does not use of them is overwritten."""
    data = avif_of_items(b"av01", 1, b"before, and the item", containers=2)
    start = data.index(b"the item")
    two_boxes = struct.pack(">II", start, len(b"the item") + 8 + len(b"before"))
    data = data.replace(struct.pack(">II", 28, 20), two_boxes)
    reduced = reduce(data).data
    kept = slice(start, start + 22)
    assert reduced[kept] == data[kept]
    assert reduced[28:start] == bytes(start - 28)
    assert reduced[kept.stop : data.index(b"meta") - 4] == bytes(len(b", and the item"))


def test_the_exif_of_an_avif_may_be_broken() -> None:
    data = personal_image("AVIF", 1)
    start = data.index(b"MM\0*")
    broken = data[:start] + b"\xff" * 40 + data[start + 40 :]
    assert (decode(broken) == decode(encode(noise(), "AVIF", quality=80))).all()


def test_an_avif_sequence_is_decoded() -> None:
    data = encode(noise(), "AVIF", save_all=True, append_images=[Image.new("RGB", (40, 30))])
    assert (decode(data) == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()


def test_an_animated_png_is_reduced_to_its_default_image() -> None:
    data = encode(noise(), "PNG", save_all=True, append_images=[Image.new("RGB", (40, 30))])
    assert b"fdAT" in data
    assert reduce(data).data == PLAIN


@pytest.mark.parametrize("format_", FORMATS)
def test_files_that_are_cut_off_anywhere_are_rejected(format_: str) -> None:
    data = encode(noise(), format_)
    for length in (*range(1, 60), *range(60, len(data) // 2, 97)):
        with pytest.raises(BadImage):
            decode(data[:length])
