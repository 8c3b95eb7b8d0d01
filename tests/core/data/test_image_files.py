"""detector_core.data.image_files: only images are read as a whole, and errors say why."""

import errno
from pathlib import Path

import pytest

from detector_core import storage
from detector_core.data import image_files
from detector_core.errors import BadData, BadImage, NotAnImage
from tests.support.images import encode, noise


def test_an_image_is_read_whatever_its_name(tmp_path: Path) -> None:
    data = encode(noise())
    for name in ("hash", "a.txt", "deep/IMG_1.HEIC"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
        assert image_files.read(str(tmp_path), name) == data


@pytest.mark.parametrize("head", [b"no image", b"BMW and other cars", b"\0\0\0\x18ftypmp42"])
def test_of_another_file_only_the_head_is_read(tmp_path: Path, head: bytes) -> None:
    with (tmp_path / "large.jpg").open("wb") as file:
        file.write(head)
        file.truncate(2**40)
    with pytest.raises(NotAnImage, match="not an image: known formats are JPEG"):
        image_files.read(str(tmp_path), "large.jpg")


def test_an_empty_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    assert image_files.read(str(tmp_path), "empty.jpg") == b""


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), BadImage, "the file cannot be opened: Permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file"), BadImage, "the file cannot be opened: No such file"),
        (
            OSError(errno.EIO, "Input/output error"),
            BadData,
            r"s3://b/a\.jpg cannot be read \(.*\): run the same command",
        ),
    ],
)
def test_a_file_that_cannot_be_opened_is_told_from_a_failing_storage(
    monkeypatch: pytest.MonkeyPatch, error: OSError, expected: type[BadData], message: str
) -> None:
    class Store:
        def open_input_stream(self, _: str) -> None:
            raise error

    monkeypatch.setattr(storage, "locate", lambda where: (Store(), where))
    with pytest.raises(expected, match=message) as raised:
        image_files.read("s3://b", "a.jpg")
    assert isinstance(raised.value, BadImage) == (expected is BadImage)
