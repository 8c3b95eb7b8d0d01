"""detector_core.storage: places that are no object store of ours, and folders of one user alone."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow import fs

from detector_core import storage
from detector_core.errors import BadConfig, BadData
from detector_core.storage import paths


@pytest.mark.parametrize("where", ["ftp://host/faces", "https://host/faces/a.jpg"])
def test_a_place_that_nothing_opens_is_named(where: str) -> None:
    with pytest.raises(BadData, match=f"^{where} cannot be opened: .*{where.partition(':')[0]}"):
        storage.read_bytes(where)


def test_in_another_filesystem_the_folders_above_a_file_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = "hdfs://host/runs/one/metrics.csv"
    monkeypatch.setattr(
        paths, "locate", lambda uri: (fs.LocalFileSystem(), str(uri).replace("hdfs://host", str(tmp_path)))
    )
    for content in (b"first", b"second"):
        storage.write_bytes(where, content)
        assert storage.read_bytes(where) == content
    assert storage.names("hdfs://host/runs/one") == ["metrics.csv"]
    assert (tmp_path / "runs" / "one" / "metrics.csv").read_bytes() == b"second"


def test_a_folder_of_ones_own_is_made_once_and_for_its_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = storage.private_folder("models")
    (made / "kept").touch()
    assert (made.parent, made.stat().st_mode & 0o777) == (tmp_path, 0o700)
    assert storage.private_folder("models") == made
    assert (made / "kept").exists()


def _of_another(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, os.getuid() + 1, -1)


@pytest.mark.parametrize(
    "plant",
    [
        lambda folder: folder.symlink_to(folder.parent),
        lambda folder: folder.symlink_to(folder.parent / "nowhere"),
        Path.touch,
        pytest.param(_of_another, marks=pytest.mark.skipif(os.getuid() != 0, reason="only root gives a folder away")),
    ],
    ids=["link", "link to nowhere", "file", "of another user"],
)
def test_what_somebody_else_put_there_is_not_taken_for_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"models-{os.getuid()}"
    plant(folder)
    with pytest.raises(BadConfig, match=f"^{folder} belongs to somebody else: remove it, or set TMPDIR"):
        storage.private_folder("models")
