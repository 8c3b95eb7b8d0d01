"""Holds ``jobs.predict`` to the service: 300 files of every kind get the same answer from both.

  python -m reliability.agreement
  python -m reliability.agreement --files 60 --portraits FOLDER

Starts a real ``python -m jobs.serve`` with the starter model, sends it portraits, groups, pictures without a face,
clips, signed and damaged files, and runs ``python -m jobs.predict FOLDER --out`` on the same files. Then adds one file,
which alone may be scored; and kills a job of each pipeline after its first chunk, which must go on where it was.

Without --portraits (a folder of aligned portraits, searched at any depth) the faces are painted ones. Prints a table by
kind, and one JSON object as the last line. Exits with 1 if anything differs.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from benchmarks.machine import describe
from detector_core.images import formats
from detector_core.registry import starter
from jobs.scoring.pipelines import PIPELINES
from jobs.scoring.results import STORE
from reliability.agreement.files import make_files, one_more
from tests.support.serving import Service, running

TOLERANCE = 1e-3
"""How far p_fake may differ: the service batches other images together."""
SETTINGS = "http: {faces: 'on', timeout_s: 55, formats: [JPEG, PNG, WEBP, AVIF, GIF, HEIC, BMP, TIFF]}\n"


def main() -> NoReturn:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m reliability.agreement",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--files", type=int, default=300, help="how many files [300]")
    parser.add_argument("--portraits", type=Path, help="a folder of aligned portraits [painted ones]")
    arguments = parser.parse_args()
    print(describe(), flush=True)
    with tempfile.TemporaryDirectory(prefix="agreement-") as scratch:
        result = run(Path(scratch), arguments.files, arguments.portraits)
    print(json.dumps(result))
    sys.exit(0 if result["held"] else 1)


def run(scratch: Path, count: int, portraits: Path | None) -> dict[str, Any]:
    """Makes the files, asks both, and compares."""
    models, folder, out = Path(starter.private_models(print)), scratch / "files", scratch / "out"
    make_files(folder, count, portraits)
    (scratch / "serve.yaml").write_text(SETTINGS)
    (scratch / "home").mkdir()
    config = ("--config", str(scratch / "serve.yaml"))
    with running(models, scratch / "home", scratch / "stderr", *config) as service:
        answers = {path.relative_to(folder).as_posix(): ask(service, path) for path in sorted(folder.rglob("*.*"))}
    first = predict(folder, models, out)
    rows = read_table(out)
    differing = {path: why for path, answer in answers.items() if (why := difference(answer, rows.get(path)))}
    for path, why in differing.items():
        print(f"DIFFERS: {path}: {why}")
    print(summary(answers, rows, differing).to_string())
    one_more(folder / "new.png", portraits)
    second = predict(folder, models, out)
    resumed = {name: killed_and_continued(folder, models, scratch / name, name) for name in PIPELINES}
    before = read_table(out)
    same = all(is_same_table(read_table(scratch / name), before) for name in PIPELINES)
    result = {
        "files": len(answers),
        "answered": sum(status == 200 for status, _ in answers.values()),
        "differing": len(differing),
        "scored": first["scored"],
        "scored_after_one_more": second["scored"],
        "scored_after_a_kill": {name: result["scored"] for name, result in resumed.items()},
        "same_table_after_a_kill": same,
    }
    resumes = all(0 < result["scored"] < first["scored"] for result in resumed.values())
    held = not differing and second["scored"] == 1 and resumes and same
    return {**result, "held": held}


def ask(service: Service, path: Path) -> tuple[int, dict[str, Any]]:
    """The status and the answer of the service about one file."""
    data = path.read_bytes()
    if data and formats.identify(data[: formats.HEAD_BYTES]) is None:
        status, text = service.request("POST", "/v1/detect/video?faces=on", data, "video/mp4")
        return status, json.loads(text)
    status, text = service.request("POST", "/v1/detect?faces=on", data, "image/jpeg")
    body = json.loads(text)
    return status, body["results"][0] if status == 200 else body


def command(folder: Path, models: Path, out: Path) -> list[str]:
    """The job on a folder."""
    job = [sys.executable, "-m", "jobs.predict", str(folder), "--models", str(models), "--out", str(out)]
    return [*job, "--faces", "on", "--sheet", "0"]


def predict(folder: Path, models: Path, out: Path, *flags: str) -> dict[str, Any]:
    """Runs the job; returns its result."""
    done = subprocess.run([*command(folder, models, out), *flags], stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def killed_and_continued(folder: Path, models: Path, out: Path, pipeline: str) -> dict[str, Any]:
    """Kills the job and all its processes once a chunk is kept, and runs it again; returns the second result."""
    job = subprocess.Popen(
        [*command(folder, models, out), "--pipeline", pipeline], stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while job.poll() is None and not any(chunks(out)):
            time.sleep(0.02)
    finally:  # also when this run is interrupted
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    return predict(folder, models, out, "--pipeline", pipeline)


def chunks(out: Path) -> list[Path]:
    """The chunks of scores that are kept."""
    return [path for path in (out / STORE).glob("*/*.parquet") if not path.parent.name.startswith("files-")]


def read_table(out: Path) -> dict[str, dict[str, Any]]:
    """The rows of the table by path, and what was left out."""
    table = pd.read_parquet(out / "predictions.parquet").astype(object)
    rows = table.where(table.notna(), None).set_index("path").to_dict("index")
    left_out = pd.read_csv(out / "left_out.csv").set_index("path").to_dict("index")
    return {**rows, **left_out}


def difference(asked: tuple[int, dict[str, Any]], row: dict[str, Any] | None) -> str:
    """How a row differs from the answer of the service; empty if it does not."""
    status, answer = asked
    if row is None:
        return "it has no row"
    if status != 200:
        said = answer["error"]["message"]
        heard = row.get("error") or row.get("reason") or "no error"
        is_same = heard == said or (heard.startswith("not an image") and status == 400)
        return "" if is_same else f"the service says {said!r}, the job {heard!r}"
    expected = {
        "verdict": answer["verdict"],
        "warnings": " ".join(answer["warnings"]),
        "provenance": " ".join(
            f"{claim['kind']}:{claim['says']}:{claim['standing']}" for claim in answer["provenance"]
        ),
    }
    if "crop_box" in answer:  # an image
        expected["faces"] = len(answer["faces"])
        expected["crop_box"] = " ".join(map(str, answer["crop_box"])) if answer["crop_box"] else None
    for name, value in expected.items():
        if row[name] != value:
            return f"{name} is {value!r} in the service and {row[name]!r} in the job"
    p_fake = row["p_fake"]
    if (p_fake is None) != (answer["p_fake"] is None) or (p_fake and abs(p_fake - answer["p_fake"]) > TOLERANCE):
        return f"p_fake is {answer['p_fake']} in the service and {p_fake} in the job"
    return ""


def is_same_table(table: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> bool:
    """Whether two jobs say the same about all files."""
    return table.keys() == other.keys() and all(is_same(table[path], row) for path, row in other.items())


def is_same(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two jobs say the same about a file."""
    names = [name for name in row if name not in ("p_fake", "logit", "group")]
    close = abs((row.get("p_fake") or 0) - (other.get("p_fake") or 0)) <= TOLERANCE
    return close and all(row[name] == other[name] for name in names)


def summary(answers: dict[str, Any], rows: dict[str, dict[str, Any]], differing: dict[str, str]) -> pd.DataFrame:
    """By kind of file: how many there are, what was answered, and how many differ."""
    table = pd.DataFrame({"path": list(answers)})
    table["kind"] = table["path"].str.partition("/")[0]
    table["outcome"] = [str(rows.get(path, {}).get("verdict") or "no verdict") for path in table["path"]]
    counts = table.pivot_table(index="kind", columns="outcome", aggfunc="size", fill_value=0)
    counts["differ"] = table["path"].isin(differing.keys()).groupby(table["kind"]).sum()
    return counts


if __name__ == "__main__":
    main()
