"""The two pipelines that score files on Ray, and which one is used: both give the same rows.

``tasks``: each task decodes a chunk of files, finds faces and predicts, all on one core. Nothing but rows leaves it, so
on CPUs it is the faster one; but a GPU would wait for the core that decodes.

``data``: Ray Data. A pool of actors, which grows to all cores, decodes files and finds faces; actors on the GPUs
predict. Ray Data holds the decoders back while decoded files wait. It is used with GPUs.

Neither resumes anything itself: the caller stores the rows by content, and calls again with what is missing. Ray Data's
own checkpoints were seen to hang on two cores, and to repeat rows.
"""

import itertools
import logging
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import pandas as pd
import ray
import ray.data
from ray.util.annotations import RayDeprecationWarning

from detector_core.errors import DetectorError, first_line
from jobs.common import cli
from jobs.common.chunks import CHUNK_IMAGES, map_chunks
from jobs.common.cluster import maximum_resources, original_error
from jobs.scoring.results import SCORE_COLUMNS
from jobs.scoring.rows import (
    BATCH,
    COLUMNS,
    Task,
    as_table,
    decode_file,
    describe_model,
    load_predictor,
    predict_decoded,
    predict_files,
)

Name = Literal["tasks", "data"]
Files = Iterable[list[tuple[str, str]]]
"""Chunks of files to score: the content of each, and a path to read it from."""
ROUND_FILES = 50_000
"""Files of one run of Ray Data. It keeps a list of them all in the driver; between two runs, actors are started."""
RETRIES = 3
"""How often Ray Data is started again after the death of an actor, since it scored anything."""


def choose(device: str) -> Name:
    """The pipeline for a device."""
    return "tasks" if device == "cpu" else "data"


def chunk_size(files: int) -> int:
    """How many files to score, and to keep, at a time: fewer in a small folder, so that it occupies all cores, too."""
    tasks = 2 * int(ray.cluster_resources().get("CPU", 1))
    return max(BATCH, min(CHUNK_IMAGES, -(-files // max(1, tasks))))


def gpus_of(device: str) -> int:
    """The number of GPUs of each process that predicts."""
    return int(device != "cpu")


def score_with_tasks(task: Task, files: Files) -> Iterator[pd.DataFrame]:
    """Scores each chunk in one task.

    Yields:
        SCORE_COLUMNS of a chunk, as chunks are finished.

    Raises:
        BrokenArtifact, BadData: see :func:`jobs.scoring.rows.predict_files`.
    """
    gpus = gpus_of(task.device)
    predicting = ray.remote(num_cpus=1, num_gpus=gpus)(predict_files)
    sent: dict[int, list[str]] = {}

    def calls() -> Iterator[tuple[Task, list[str]]]:
        for number, chunk in enumerate(files):
            sent[number] = [content for content, _ in chunk]
            yield task, [path for _, path in chunk]

    for number, rows in map_chunks(predicting, calls()):
        yield rows.assign(content=sent.pop(number))[SCORE_COLUMNS]


def score_with_data(task: Task, files: Files) -> Iterator[pd.DataFrame]:
    """Scores files with Ray Data: cores decode, GPUs predict; without a GPU, one more process predicts.

    If an actor dies, what is missing is scored again by new ones.

    Yields, raises: as :func:`score_with_tasks`; RayActorError if actors die again and again.
    """
    for chunks in _rounds(files):
        left = {content: path for chunk in chunks for content, path in chunk}
        deaths = 0
        while left:
            try:
                for frame in _run(task, left):
                    for content in frame["content"]:
                        del left[content]
                    deaths = 0
                    yield frame
            except ray.exceptions.RayActorError:
                deaths += 1
                if deaths > RETRIES:
                    raise
                cli.say(f"a process has died: {len(left):,} files are left, started again ({deaths} of {RETRIES})")


def _run(task: Task, files: dict[str, str]) -> Iterator[pd.DataFrame]:
    """One run of Ray Data over files, by their content."""
    most, gpus = maximum_resources(), gpus_of(task.device)
    decoders = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, int(most.get("CPU", 1))))
    # The predicting actors take no core of their own: on a machine with two, one would be left to decode, or none.
    predictors = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, int(most.get("GPU", 1))) if gpus else 1)
    common: dict[str, Any] = {
        "fn_constructor_args": (task,),
        "batch_size": BATCH,
        "batch_format": "pandas",
        "max_restarts": 0,  # Ray would restart the actor and repeat the same batch without end
    }
    rows = [{"content": content, "path": path} for content, path in files.items()]
    with ray.data.DataContext.current(_context()), warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # of max_restarts, which has no successor yet
        listed = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // BATCH))
        decoded = listed.map_batches(_Decoder, compute=decoders, num_cpus=1, **common)
        scored = decoded.map_batches(_Predictor, compute=predictors, num_cpus=0, num_gpus=gpus, **common)
    try:
        for batch in scored.iter_batches(batch_size=chunk_size(len(rows)), batch_format="pandas"):
            yield pd.DataFrame(batch)[SCORE_COLUMNS].astype({name: COLUMNS.get(name, "str") for name in SCORE_COLUMNS})
    except ray.exceptions.RayTaskError as error:
        cause = original_error(error)
        # Ray Data has added lines of its own to the message.
        raise type(cause)(first_line(cause)) if isinstance(cause, DetectorError) else cause from None


PIPELINES: dict[Name, Callable[[Task, Files], Iterator[pd.DataFrame]]] = {
    "tasks": score_with_tasks,
    "data": score_with_data,
}


class _Decoder:
    """An actor that decodes files and finds faces."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        model = describe_model(self._task)
        decoded = [pickle.dumps(decode_file(self._task, path, model)) for path in batch["path"]]
        return batch.assign(decoded=decoded)


class _Predictor:
    """An actor with the model, loaded at its first call: an error in its constructor would reach nobody as it is."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        decoded = [pickle.loads(data) for data in batch["decoded"]]
        rows = predict_decoded(self._task, load_predictor(self._task), list(batch["path"]), decoded)
        return as_table(rows).assign(content=list(batch["content"]))[SCORE_COLUMNS]


def _rounds(files: Files) -> Iterator[list[list[tuple[str, str]]]]:
    """The chunks of about ROUND_FILES files at a time."""
    remaining = iter(files)
    while chunks := list(itertools.islice(remaining, ROUND_FILES // CHUNK_IMAGES)):
        yield chunks


def _context() -> ray.data.DataContext:
    """Ray Data that raises our errors as they are, without progress bars and messages of its own."""
    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":
            handler.setLevel(logging.CRITICAL)  # what goes wrong is raised, too
    context = ray.data.DataContext.get_current().copy()
    context.raise_original_map_exception = True
    context.enable_progress_bars = context.print_on_execution_start = False
    return context
