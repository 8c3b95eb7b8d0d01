"""detector_core.images.offsets: the boxes of a file and where its items lie, also if it is damaged."""

import struct

import pytest

from detector_core.errors import BadImage
from detector_core.images.offsets import Box, walk_boxes, walk_extents
from tests.support.attacks import box


def test_a_box_has_a_short_or_a_long_length_or_fills_the_rest() -> None:
    data = box(b"free", b"ab") + struct.pack(">I4sQ", 1, b"mdat", 19) + b"abc" + struct.pack(">I4s", 0, b"meta") + b"ab"
    assert [(found.name, data[found.content : found.end]) for found in walk_boxes(data, 0, len(data))] == [
        (b"free", b"ab"),
        (b"mdat", b"abc"),
        (b"meta", b"ab"),
    ]


def test_boxes_end_at_one_that_is_shorter_than_its_header() -> None:
    data = box(b"free", b"") + struct.pack(">I4s", 7, b"mdat") + box(b"free", b"")
    assert [found.name for found in walk_boxes(data, 0, len(data))] == [b"free"]


def test_a_list_of_more_items_than_there_are_is_damaged() -> None:
    one = struct.pack(">IHHHHHII", 0, 0x4400, 1, 7, 0, 1, 100, 20)  # version 0, one item of one extent
    assert list(walk_extents(one, Box(b"iloc", 0, 0, len(one)), 0)) == [(7, 100, 120)]
    many = one[:6] + struct.pack(">H", 65_535) + one[8:]
    with pytest.raises(BadImage, match="it lists more items than it has"):
        list(walk_extents(many + bytes(100), Box(b"iloc", 0, 0, len(many)), 0))
