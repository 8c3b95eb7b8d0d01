"""detector_core.storage.list_files: every file once, and a reason for everything else."""

import os
import socket
from pathlib import Path

import pytest
from pyarrow import fs

from detector_core import storage
from detector_core.errors import BadData
from detector_core.storage import listing


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def listed(root: Path) -> tuple[list[str], dict[str, str]]:
    """The paths of the files, and the kind of reason for what is left out by path."""
    found = storage.list_files(str(root), "a folder")
    assert found.files == sorted(found.files)
    return [path for path, _, _ in found.files], {path: why.partition(":")[0] for path, why in found.left_out}


def test_files_at_any_depth_are_listed_with_size_and_time(tmp_path: Path) -> None:
    touch(tmp_path, "b", "deep/er/a", "name with\nlines", "%2F#?.jpg")
    (found,) = [file for file in storage.list_files(str(tmp_path), "a folder").files if file[0] == "deep/er/a"]
    assert found == ("deep/er/a", 1, (tmp_path / "deep/er/a").stat().st_mtime_ns)
    assert listed(tmp_path) == (["%2F#?.jpg", "b", "deep/er/a", "name with\nlines"], {})


def test_a_folder_is_visited_once_whatever_links_lead_to_it(tmp_path: Path) -> None:
    touch(tmp_path, "top/real/a", "top/fake/b", "elsewhere/c", "elsewhere/d")
    top = tmp_path / "top"
    for link, target in (
        ("loop", top),
        ("real/up", top),
        ("a twin", top / "real"),
        ("fake/other", tmp_path / "elsewhere"),
    ):
        (top / link).symlink_to(target)
    (tmp_path / "elsewhere" / "back").symlink_to(top / "fake")
    files, left_out = listed(top)
    assert files == ["fake/b", "fake/other/c", "fake/other/d", "real/a"]
    assert left_out == dict.fromkeys(
        ["a twin", "fake/other/back", "loop", "real/up"], "a link to a folder that is listed already"
    )


def test_whatever_is_not_listed_has_a_reason(tmp_path: Path) -> None:
    touch(tmp_path, "kept", ".hidden", ".folder/inside")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg"))).touch()
    files, left_out = listed(tmp_path)
    assert files == ["kept"]
    assert left_out == {
        ".folder": "hidden",
        ".hidden": "hidden",
        "\\udcff.jpg": "its name is not valid UTF-8",
        "circle": "the file cannot be opened",
        "dangling": "a link to a file that does not exist",
        "pipe": "a device, not a file",
    }


def test_a_folder_that_cannot_be_opened_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "kept", "locked/inside")
    scan = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(listing.os, "scandir", refuse)
    assert listed(tmp_path) == (["kept"], {"locked": "the folder cannot be opened"})
    with pytest.raises(PermissionError):
        storage.list_files(str(tmp_path / "locked"), "a folder")


def test_other_filesystems_are_listed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "bucket/a", "bucket/deep/b", "bucket/.parts/c", "bucket/deep/.d")
    other = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    monkeypatch.setattr(listing, "locate", lambda uri: (other, str(uri).removeprefix("hdfs://")))
    found = storage.list_files("hdfs://bucket", "a folder")
    assert [path for path, _, _ in found.files] == ["a", "deep/b"]
    assert [path for path, _ in found.left_out] == [".parts/c", "deep/.d"]


@pytest.mark.parametrize(("name", "problem"), [("nowhere", "does not exist"), ("file", "is not a folder")])
def test_the_error_for_something_else_names_it(tmp_path: Path, name: str, problem: str) -> None:
    touch(tmp_path, "file")
    with pytest.raises(BadData, match=f"^{tmp_path}/{name} {problem}: give a folder of images$"):
        storage.list_files(str(tmp_path / name), "a folder of images")


def test_a_socket_is_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert listed(tmp_path) == ([], {"socket": "a device, not a file"})
