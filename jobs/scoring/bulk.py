"""Scoring of whole folders on Ray: chunk by chunk, with what is done kept until the table is written."""

import hashlib
import json
import re
from typing import Any

import pandas as pd
import ray
from tqdm import tqdm

from detector_core import storage
from detector_core.data.index import Index, no_images, scan_unlabeled
from detector_core.evaluation.calibration import NO_FACE, VERDICTS
from detector_core.registry import versions
from detector_core.registry.predictor import ModelInfo, describe
from jobs.common import cli
from jobs.common.chunks import CHUNK_IMAGES, ChunkStore, map_chunks
from jobs.common.cluster import check_resources, connect
from jobs.scoring.rows import FORMAT, Task, predict_files
from serve_app.schemas import FaceAnswer
from serve_app.settings import Faces

TABLE, FACES, LEFT_OUT, SUMMARY = "predictions.csv", "faces.csv", "left_out.csv", "predictions.json"
FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""Characters with which a formula begins in a spreadsheet, also as wide characters of East Asian scripts."""


def predict_folder(
    source: str, location: str, out: str, device: str, *, faces: Faces, per_face: bool, signers: str = ""
) -> dict[str, Any]:
    """Lists the images, predicts chunk by chunk, sorts and saves; returns the result of the job.

    Args:
        source, location, out: folders or URIs of the images, the model and the results.
        device: ``cpu`` or ``cuda``.
        faces: as in a request to the service.
        per_face: also write a table with a row for every scored face.
        signers: certificates of trusted signers, as PEM.
    """
    model = describe(versions.fetch(location))
    index = scan_unlabeled(source)
    paths = index.frame["path"].tolist()
    cli.say(f"{len(paths):,} files below {index.root}, model {model.version}")
    chunks = [paths[start : start + CHUNK_IMAGES] for start in range(0, len(paths), CHUNK_IMAGES)]
    settings = hashlib.sha256(f"{device} {faces} {signers}".encode()).hexdigest()[:8]
    store = ChunkStore(out, f"{index.key}-{model.version}-{settings}-{FORMAT}")
    stored = store.done()
    gpus = int(device != "cpu")
    todo = [number for number in range(len(chunks)) if number not in stored]
    with connect(), tqdm(total=len(paths), initial=sum(len(chunks[n]) for n in stored), unit=" files") as bar:
        check_resources(cpus=1, gpus=gpus, purpose="jobs.predict")
        work = Task(version=location, device=device, faces=faces, root=index.root, signers=signers)
        task = ray.remote(num_cpus=1, num_gpus=gpus)(predict_files)
        for position, predictions in map_chunks(task, [(work, chunks[number]) for number in todo]):
            store.write(todo[position], predictions)
            bar.update(len(predictions))
    result = write(out, store.read(len(chunks)), index, model, device, per_face)
    store.remove()
    return result


def write(out: str, rows: pd.DataFrame, index: Index, model: ModelInfo, device: str, per_face: bool) -> dict[str, Any]:
    """Writes the tables and the summary, and returns the result of the job.

    Args:
        rows: of :func:`jobs.scoring.rows.predict_files`, for every file of the index.

    Raises:
        BadData: none of the files is an image.
    """
    is_image = rows["left_out"].isna()
    table = rows[is_image].drop(columns=["left_out", "scored_faces"])
    table = table.sort_values(["p_fake", "path"], ascending=[False, True], na_position="last")
    others = rows.loc[~is_image, ["path", "left_out"]].rename(columns={"left_out": "reason"})
    left_out = pd.concat([index.left_out, others]).sort_values("path")
    if table.empty:
        raise no_images(index.root, left_out)
    reasons = left_out["reason"].str.split(":").str[0].value_counts().sort_index().to_dict()
    counts = {verdict: int((table["verdict"] == verdict).sum()) for verdict in (*VERDICTS, NO_FACE)}
    result: dict[str, Any] = {
        "predictions": storage.join(out, TABLE),
        "model": model.version,
        "images": len(table),
        "verdicts": counts,
        "unreadable": int(table["error"].notna().sum()),
        "left_out": len(left_out),
    }
    summary = {
        **result,
        "left_out": {"count": len(left_out), "reasons": reasons},
        "source": index.root,
        "device": device,
        "calibration": model.calibration.to_dict(),
        "test": list(model.test_metrics),
    }
    tables = {TABLE: table, LEFT_OUT: left_out} | ({FACES: face_table(rows)} if per_face else {})
    for name, frame in tables.items():
        csv = frame.assign(path=frame["path"].map(not_a_formula)).to_csv(index=False)
        storage.write_bytes(storage.join(out, name), csv.encode())
    storage.write_bytes(storage.join(out, SUMMARY), json.dumps(summary, indent=2, allow_nan=False).encode())
    counts = {**counts, "unreadable": result["unreadable"], "left out": len(left_out)}
    why = f" ({', '.join(f'{count:,} {reason}' for reason, count in reasons.items())})" if reasons else ""
    cli.say(", ".join(f"{count:,} {name}" for name, count in counts.items()) + why)
    return result


def face_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per scored face, the highest p_fake first; boxes and quality flags are separated by spaces."""
    faces = [
        {"path": path, **{name: _words(value) for name, value in face.items()}}
        for path, scored in zip(rows["path"], rows["scored_faces"], strict=True)
        if isinstance(scored, str)
        for face in json.loads(scored)
    ]
    table = pd.DataFrame(faces, columns=["path", *FaceAnswer.model_fields])
    return table.sort_values(["p_fake", "path"], ascending=[False, True])


def _words(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def not_a_formula(path: str) -> str:
    """The same path, but never one that a spreadsheet would execute as a formula."""
    return f"./{path}" if FORMULA.match(path) else path
