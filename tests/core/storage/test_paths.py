"""detector_core.storage: URIs of other filesystems, and private folders."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from detector_core import storage
from detector_core.errors import BadConfig, BadData, OperationRefused
from detector_core.storage import paths


@pytest.mark.parametrize("where", ["ftp://host/faces", "https://host/faces/a.jpg"])
def test_the_error_for_an_unsupported_scheme_names_the_uri(where: str) -> None:
    with pytest.raises(BadData, match=f"^{where} cannot be opened: .*{where.partition(':')[0]}"):
        storage.read_bytes(where)


def test_parent_folders_are_created_in_other_filesystems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = "hdfs://host/runs/one/metrics.csv"
    monkeypatch.setattr(
        paths, "locate", lambda uri: (fs.LocalFileSystem(), str(uri).replace("hdfs://host", str(tmp_path)))
    )
    for content in (b"first", b"second"):
        storage.write_bytes(where, content)
        assert storage.read_bytes(where) == content
    assert storage.names("hdfs://host/runs/one") == ["metrics.csv"]
    assert (tmp_path / "runs" / "one" / "metrics.csv").read_bytes() == b"second"
    storage.put_file(tmp_path / "runs" / "one" / "metrics.csv", "hdfs://host/copies/metrics.csv")
    storage.put_file(tmp_path / "runs" / "one" / "metrics.csv", tmp_path / "deep" / "metrics.csv")
    assert (tmp_path / "copies" / "metrics.csv").read_bytes() == b"second"
    assert (tmp_path / "deep" / "metrics.csv").read_bytes() == b"second"


def test_a_file_does_not_replace_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    with pytest.raises(IsADirectoryError, match="folder"):
        storage.write_bytes(tmp_path / "folder", b"x")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "kept"]


def test_a_lock_that_another_holds_can_be_refused(tmp_path: Path) -> None:
    with (
        storage.locked(tmp_path / "lock"),
        pytest.raises(OperationRefused, match="one at a time"),
        storage.locked(tmp_path / "lock", busy="one at a time"),
    ):
        pass
    with storage.locked(tmp_path / "lock", busy="one at a time"):
        pass


@pytest.fixture(params=[0o022, 0o027], ids=["022", "027"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """The umask of this process."""
    previous = os.umask(request.param)
    yield request.param
    os.umask(previous)


def modes(top: Path) -> dict[str, int]:
    """The permissions of a file, or of a folder and everything in it, by relative path."""
    return {path.relative_to(top).as_posix(): path.stat().st_mode & 0o777 for path in (top, *top.rglob("*"))}


def test_what_is_published_has_the_modes_of_the_umask_and_scratch_is_private(tmp_path: Path, umask: int) -> None:
    scratch = Path(tempfile.mkdtemp(dir=tmp_path))
    (scratch / "weights").touch(mode=0o600)
    (scratch / "evaluation").mkdir(mode=0o700)
    storage.put_folder(scratch, tmp_path / "deep" / "model", last="weights")
    expected = {".": 0o777 & ~umask, "evaluation": 0o777 & ~umask, "weights": 0o666 & ~umask}
    assert modes(tmp_path / "deep" / "model") == expected
    with storage.replacing(tmp_path / "table") as temporary:
        assert temporary.parent.stat().st_mode & 0o777 == 0o700
        temporary.touch(mode=0o600)
    assert modes(tmp_path / "table") == {".": 0o666 & ~umask}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([scratch.name, "deep", "table"])


def test_published_links_are_kept_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "private").touch(mode=0o600)
    with storage.replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "link").symlink_to(tmp_path / "private")
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "folder" / "link").is_symlink()


def test_a_private_folder_is_created_once_with_permissions_for_its_user_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = storage.private_folder("models")
    (folder / "kept").touch()
    assert (folder.parent, folder.stat().st_mode & 0o777) == (tmp_path, 0o700)
    assert storage.private_folder("models") == folder
    assert (folder / "kept").exists()


def _give_to_another_user(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, os.getuid() + 1, -1)


@pytest.mark.parametrize(
    "create",
    [
        lambda folder: folder.symlink_to(folder.parent),
        lambda folder: folder.symlink_to(folder.parent / "nowhere"),
        Path.touch,
        pytest.param(
            _give_to_another_user,
            marks=pytest.mark.skipif(os.getuid() != 0, reason="only root can change the owner of a folder"),
        ),
    ],
    ids=["link", "dangling link", "file", "folder of another user"],
)
def test_a_path_that_is_not_a_folder_of_this_user_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"models-{os.getuid()}"
    create(folder)
    with pytest.raises(BadConfig, match=f"^{folder} is not a folder of this user: delete it, or set TMPDIR"):
        storage.private_folder("models")


def test_a_json_file_from_elsewhere_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for text, problem in (("{", "Expecting"), ("[" * 100_000, "nested too deeply"), ("[1, 2, 3]", "more than 8 bytes")):
        file.write_text(text)
        with pytest.raises(ValueError, match=problem):
            storage.read_json(file, max_bytes=8 if text == "[1, 2, 3]" else 10**6)
    assert storage.read_json(file) == [1, 2, 3]
    with pytest.raises(FileNotFoundError):
        storage.read_json(tmp_path / "missing.json")
