"""Both pipelines give the same rows, also if a process of one dies."""

import contextlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from detector_core.errors import BadData
from detector_core.registry import versions
from jobs.common.cluster import connect
from jobs.scoring.pipelines import choose, score_with_data, score_with_tasks
from jobs.scoring.rows import BATCH, Task
from tests.conftest import image_bytes
from tests.support.clips import make_clip
from tests.support.models import save_model
from tests.support.processes import children, kill

LIMIT_S = 60
DECODING = "ray::MapWorker(MapBatches(_Decoder)).submit"
"""The title of a process while it decodes."""


def test_decoding_gets_cores_of_its_own_where_a_gpu_would_wait_for_it() -> None:
    assert (choose("cpu"), choose("cuda")) == ("tasks", "data")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    versions.promote(save_model(tmp_path / "model"), tmp_path / "models")
    (tmp_path / "files").mkdir()
    model = str(versions.live(tmp_path / "models"))
    return Task(version=model, device="cpu", faces="off", root=str(tmp_path / "files"))


@pytest.mark.usefixtures("shared_ray")
@pytest.mark.filterwarnings("ignore::Warning")  # Ray's own
def test_both_give_the_same_rows_although_a_decoder_dies(task: Task) -> None:
    root = Path(task.root)
    images = {f"{number:02}": image_bytes(number, "real") for number in range(BATCH + 3)}
    others = {"clip": make_clip(3), "cut": images["00"][:300], "text": b"no image", "held": images["01"]}
    for name, data in (images | others).items():
        (root / name).write_bytes(data)
    names = ["held", *images, "clip", "cut", "text", "gone"]
    chunks = [[(f"content of {name}", name) for name in part] for part in (names[:20], names[20:])]
    with connect(), decoder_dies_at(root / "held"):
        both = [pd.concat(score(task, iter(chunks))) for score in (score_with_data, score_with_tasks)]
    first, second = (frame.sort_values("content", ignore_index=True) for frame in both)
    assert first["content"].tolist() == sorted(f"content of {name}" for name in names)
    assert first[["p_fake", "error", "left_out"]].notna().sum().tolist() == [BATCH + 5, 2, 1]
    pd.testing.assert_frame_equal(first, second, atol=1e-3)


@contextlib.contextmanager
def decoder_dies_at(file: Path) -> Iterator[None]:
    """Kills the process that comes to a file; the next one can read it."""
    whole = file.rename(file.with_suffix(".whole"))
    os.mkfifo(file)  # whoever opens it waits

    def kill_reader() -> None:
        deadline = time.monotonic() + LIMIT_S
        while not (busy := {pid: line for pid, line in children(os.getpid()).items() if DECODING in line}):
            assert time.monotonic() < deadline, "nobody decodes"
            time.sleep(0.02)
        whole.rename(file)
        kill(busy)

    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill_reader)
        yield
        killed.result()


@pytest.mark.usefixtures("shared_ray")
@pytest.mark.filterwarnings("ignore::Warning")  # Ray's own
def test_an_error_of_ray_data_is_ours(task: Task) -> None:
    with connect(), pytest.raises(BadData, match=r"is a directory\): run the same command again to continue$"):
        list(score_with_data(task, iter([[("content", ".")]])))
