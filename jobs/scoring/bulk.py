"""Scoring of whole folders on Ray: what was scored before, under whatever name, is not scored again."""

from typing import Any

import pandas as pd
import ray
from tqdm import tqdm

from detector_core import storage
from detector_core.data.index import no_images
from detector_core.evaluation import flag_value
from detector_core.evaluation.calibration import NO_FACE, VERDICTS
from detector_core.labels import FAKE
from detector_core.registry import versions
from detector_core.registry.predictor import ModelInfo, describe
from jobs.common import cli
from jobs.common.chunks import CHUNK_IMAGES, map_chunks, near_duplicate_groups
from jobs.common.cluster import check_resources, connect
from jobs.scoring import pipelines, tables
from jobs.scoring.results import FILE_COLUMNS, MAX_COMPARED, SCORE_COLUMNS, Results, Store, database, key_of
from jobs.scoring.rows import FORMAT, Task, hash_files
from serve_app.settings import Faces


def predict_folder(
    source: str,
    location: str,
    out: str,
    device: str,
    *,
    faces: Faces,
    per_face: bool,
    sheet: int,
    signers: str = "",
    pipeline: pipelines.Name | None = None,
) -> dict[str, Any]:
    """Lists the files, scores those whose content is new, and writes the tables; returns the result of the job.

    Args:
        source, location, out: folders or URIs of the files, the model and the results.
        device: ``cpu`` or ``cuda``.
        faces: as in a request to the service.
        per_face: also write a table with a row for every scored face.
        sheet: how many of the most suspicious images the contact sheet shows.
        signers: certificates of trusted signers, as PEM.
        pipeline: None means the faster one, see :func:`jobs.scoring.pipelines.choose`.
    """
    model = describe(versions.fetch(location))
    source = storage.absolute(source)
    task = Task(version=location, device=device, faces=faces, root=source, signers=signers)
    files = Store(out, f"files-{key_of(source)}")
    scores = Store(out, key_of(model.version, model.sha256, device, faces, signers, str(FORMAT)))
    with database() as results:
        results.add_files(storage.walk_files(source, "a folder of images"))
        cli.say(f"{results.count('left_out IS NULL'):,} files below {source}, model {model.version}")
        for known in files.frames():
            results.add_known(known)
        for known in scores.frames():
            results.add_scores(known)
        with connect():
            check_resources(cpus=1, gpus=pipelines.gpus_of(device), purpose="jobs.predict")
            _read(results, task, files)
            scored = _score(results, task, scores, pipeline or pipelines.choose(device))
            grouped = results.group(near_duplicate_groups)
        if not grouped:
            cli.say(f"more than {MAX_COMPARED:,} different images: they are not compared, the column group is empty")
        result = _write(out, results, source, model, device, scored, per_face=per_face, sheet=sheet)
        if scores.is_scattered:
            scores.replace(results.frames(", ".join(f'"{name}"' for name in SCORE_COLUMNS), "", of="scores"))
    return result


def _read(results: Results, task: Task, files: Store) -> None:
    """Learns the content of every file that is new or has changed, and keeps it for a later call."""
    unknown = results.count("coalesce(content, error, left_out) IS NULL")
    hashing = ray.remote(num_cpus=1)(hash_files)
    with tqdm(total=unknown, desc="reading", unit=" files", disable=not unknown) as bar:
        calls = ((task.root, paths) for paths in results.unread(CHUNK_IMAGES))
        for _, rows in map_chunks(hashing, calls):
            results.add_contents(rows)
            bar.update(len(rows))
    if unknown:
        files.replace(results.frames(", ".join(FILE_COLUMNS), "WHERE content NOT NULL", of="files"))


def _score(results: Results, task: Task, scores: Store, pipeline: pipelines.Name) -> int:
    """Scores every content that has no score, and keeps each chunk for a later call; returns how many there were."""
    new = results.count("content NOT NULL AND content NOT IN (SELECT content FROM scores)", of="files")
    scored = 0
    with tqdm(total=new, desc="scoring", unit=" files", disable=not new) as bar:
        for frame in pipelines.PIPELINES[pipeline](task, results.unscored(pipelines.chunk_size(new))):
            scores.add(frame)
            results.add_scores(frame)
            scored += len(frame)
            bar.update(len(frame))
    return scored


def _write(
    out: str,
    results: Results,
    source: str,
    model: ModelInfo,
    device: str,
    scored: int,
    *,
    per_face: bool,
    sheet: int,
) -> dict[str, Any]:
    """Writes the tables and the summary, and returns the result of the job. Raises BadData: there is no image."""
    images = results.count("left_out IS NULL")
    left_out = results.count("left_out NOT NULL")
    if not images:
        first = pd.concat(results.frames("path, left_out AS reason", "ORDER BY path LIMIT 1")) if left_out else None
        raise no_images(source, pd.DataFrame(columns=["path", "reason"]) if first is None else first)
    reasons: dict[str, int] = {}
    for reason, count in results.counts("left_out", "left_out NOT NULL").items():
        kind = reason.partition(":")[0]
        reasons[kind] = reasons.get(kind, 0) + count
    verdicts = results.counts("verdict", "verdict NOT NULL")
    counts = {verdict: verdicts.get(verdict, 0) for verdict in (*VERDICTS, NO_FACE)}
    result: dict[str, Any] = {
        "predictions": storage.join(out, tables.TABLE),
        "model": model.version,
        "images": images,
        "scored": scored,
        "verdicts": counts,
        "unreadable": results.count("error NOT NULL"),
        "left_out": left_out,
    }
    summary = {
        **result,
        "left_out": {"count": left_out, "reasons": reasons},
        "source": source,
        "device": device,
        "different": results.count("1", of="(SELECT DISTINCT content FROM files WHERE content NOT NULL)"),
        "calibration": model.calibration.to_dict(),
        "test": list(model.test_metrics),
    }
    others = results.frames("path, left_out AS reason", "WHERE left_out NOT NULL ORDER BY path")
    tables.write(out, results, summary, others, per_face=per_face, sheet=sheet)
    said = {**counts, "unreadable": result["unreadable"], "left out": left_out}
    why = f" ({', '.join(f'{count:,} {reason}' for reason, count in reasons.items())})" if reasons else ""
    cli.say(", ".join(f"{count:,} {name}" for name, count in said.items()) + why)
    _say_what_a_flag_is_worth(counts[FAKE], model)
    return result


def _say_what_a_flag_is_worth(flagged: int, model: ModelInfo) -> None:
    """Puts the number of flags into proportion: how many of them are right depends on how many files are fake."""
    for test in model.test_metrics[:1] if flagged else ():
        worth = "; ".join(
            f"if 1 file in {1 / entry['share_of_fakes']:,.0f} is fake, {flag_value.short(entry)} of 100 flags are right"
            for entry in test["flag_value"]
            if entry["value"] is not None
        )
        cli.say(f"{flagged:,} flagged, which is no proof: {worth or 'nothing is known of their worth'}")
