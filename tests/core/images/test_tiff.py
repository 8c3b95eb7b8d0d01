"""TIFF: ordinary files are decoded, and what has no bounded cost is refused."""

import struct
import time

import pytest

from detector_core.errors import BadImage, TooManyPixels, UnsupportedFormat
from detector_core.images.decode import decode
from tests.support.attacks import tiff
from tests.support.images import encode, noise

PLAIN = encode(noise(), "PNG")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_ordinary_tiffs_are_decoded(compression: str) -> None:
    assert (decode(encode(noise(), "TIFF", compression=compression)) == decode(PLAIN)).all()


def test_a_tiled_tiff_is_decoded() -> None:
    assert decode(tiff((64, 48), tile=(16, 16), shared=False)).shape == (48, 64, 3)


def test_tiles_of_a_tiff_may_not_share_their_bytes() -> None:
    data = tiff((100_000, 1), tile=(16, 16_000), shared=True)
    before = time.process_time()
    with pytest.raises(BadImage, match="larger together than the file"):
        decode(data)
    assert time.process_time() - before < 1


@pytest.mark.parametrize(
    ("size", "tile", "error"),
    [((64, 64), (20_000, 20_000), TooManyPixels), ((2000, 2000), (1, 1), BadImage), ((1, 200_000), None, BadImage)],
    ids=["huge tiles", "too many tiles", "too many strips"],
)
def test_the_tiles_and_strips_of_a_tiff_are_bounded(
    size: tuple[int, int], tile: tuple[int, int] | None, error: type[BadImage]
) -> None:
    with pytest.raises(error):
        decode(tiff(size, tile=tile, shared=False, compression=1))


def test_kinds_of_tiff_whose_cost_has_no_bound_are_refused_with_a_reason() -> None:
    with pytest.raises(UnsupportedFormat, match="compression 7 cannot be read, only none, CCITT"):
        decode(encode(noise(), "TIFF", compression="jpeg"))
    with pytest.raises(UnsupportedFormat, match="BigTIFF"):
        decode(encode(noise(), "TIFF", big_tiff=True))


def test_a_tiff_directory_that_refers_to_the_same_bytes_again_and_again_is_rejected() -> None:
    data = bytearray(encode(noise(), "TIFF"))
    count = int.from_bytes(data[8:10], "little")
    assert data[10 + 12 * 2 : 10 + 12 * 2 + 2] == b"\x02\x01"  # bits per sample
    data[10 + 24 : 10 + 36] = struct.pack("<HHII", 258, 1, len(data) - 10, 8)
    data[10 + 36 : 10 + 48] = struct.pack("<HHII", 258, 1, len(data) - 10, 8)
    assert count > 4
    with pytest.raises(BadImage, match="more values than it may"):
        decode(bytes(data))
