"""HEIC, the format of iPhones: decoded in a child where pi-heif is installed, else refused with what to do."""

import importlib
import importlib.util

import numpy as np
import pytest

from detector_core.errors import BadImage, UnsupportedFormat
from detector_core.images import decoder, formats, metadata, structure
from detector_core.images.claims import read_here
from detector_core.images.decode import decode_file
from detector_core.images.decoder import opened_in_child
from tests.support.images import HEIC, SECRET

pytest.importorskip("pi_heif")


def test_it_is_decoded_upright_in_a_child() -> None:
    assert formats.identify(HEIC[: formats.HEAD_BYTES]) == "HEIC"
    assert not structure.reduce(HEIC).is_plain
    with opened_in_child(HEIC) as image:
        image_HWC = image.decode().image_HWC
    decoder.CHILDREN.stop_idle()
    assert image_HWC.shape == (64, 48, 3)
    # red grows to the right in the file, and so downward once it is turned by 90 degrees clockwise
    assert image_HWC[-8:, :, 0].mean() > image_HWC[:8, :, 0].mean() + 100
    np.testing.assert_array_equal(image_HWC, decode_file(HEIC).image_HWC)


def test_its_metadata_is_read_and_removed() -> None:
    assert [claim.tool for claim in read_here(HEIC)] == ["Acme Phone 7"]
    assert SECRET in HEIC
    stripped, suffix = metadata.strip(HEIC)
    assert suffix == ".heic"
    assert SECRET not in stripped
    assert b"Acme" not in stripped
    np.testing.assert_array_equal(decode_file(stripped).image_HWC, decode_file(HEIC).image_HWC)


@pytest.mark.parametrize("end", [40, 300, 590])  # the pixels end at 598, EXIF follows
def test_a_damaged_file_is_refused(end: int) -> None:
    with pytest.raises(BadImage):
        decode_file(HEIC[:end])


def test_without_the_package_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda _: None)
        readable = importlib.reload(formats).READABLE
    try:
        assert readable == formats.BUILT_IN
        with pytest.raises(
            UnsupportedFormat, match=r"save the image as JPEG, or set the phone .* 'pip install pi-heif'"
        ):
            structure.reduce(HEIC)
    finally:
        importlib.reload(formats)
