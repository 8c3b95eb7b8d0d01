"""Memory and time of the driver of ``jobs.predict --out`` for many rows, which are generated instead of scored.

  python -m benchmarks.results --rows 100000 1000000

Every number of rows runs in a process of its own. It lists generated files, takes their scores in chunks of 256 as they
come from the workers, keeps them in the store below OUT, sorts them, and writes the tables as CSV and Parquet.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from detector_core.storage.listing import Entry
from jobs.common.chunks import CHUNK_IMAGES
from jobs.scoring import tables
from jobs.scoring.results import SCORE_COLUMNS, Store, database
from jobs.scoring.rows import COLUMNS


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    print(f"{'rows':>10} {'seconds':>8} {'before, MB':>11} {'peak, MB':>9} {'tables, MB':>11}")
    for rows in arguments.rows:
        command = [sys.executable, "-m", "benchmarks.results", "--one", str(rows)]
        result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(
            f"{rows:>10,} {result['seconds']:>8.1f} {result['before_mb']:>11.0f} {result['peak_mb']:>9.0f} "
            f"{result['tables_mb']:>11.0f}"
        )


def measure(rows: int) -> dict[str, Any]:
    """Seconds, and the peak of resident memory before and after, in MB."""
    before, started = _peak_mb(), time.perf_counter()
    with tempfile.TemporaryDirectory() as out, database() as results:
        store = Store(out, "key")
        results.add_files(Entry(path=_path(number), size=1, modified=1) for number in range(rows))
        for chunk in results.unread(CHUNK_IMAGES):
            results.add_contents((path, f"{path:0>64}", None, None) for path in chunk)
        for contents in results.unscored(CHUNK_IMAGES):
            frame = _scores([content for content, _ in contents])
            store.add(frame)
            results.add_scores(frame)
        summary = {"source": "generated", "images": rows}
        left_out: Iterator[pd.DataFrame] = iter(())
        tables.write(out, results, summary, left_out, per_face=True, sheet=0)
        size = sum(file.stat().st_size for file in Path(out).iterdir() if file.is_file())
    return {
        "seconds": time.perf_counter() - started,
        "before_mb": before,
        "peak_mb": _peak_mb(),
        "tables_mb": size / 1e6,
    }


def _path(number: int) -> str:
    return f"folder {number % 1000:03}/image {number:08}.jpg"


def _scores(contents: list[str]) -> pd.DataFrame:
    """Rows as the workers give them, with random scores."""
    p_fake = np.random.default_rng(len(contents[0]) + hash(contents[0]) % 2**32).random(len(contents))
    face = {
        "box": [1, 2, 3, 4],
        "crop_box": [1, 2, 3, 4],
        "score": 0.99,
        "p_fake": 0.5,
        "verdict": "real",
        "quality": [],
    }
    columns = {"verdict": "real", "p_fake": p_fake, "logit": p_fake, "faces": 1, "crop_box": "10 20 300 310"}
    columns |= {"warnings": "upscaled", "provenance": "", "scored_faces": json.dumps([face]), "phash": "5a" * 68}
    table = pd.DataFrame({"content": contents} | columns, columns=SCORE_COLUMNS)
    return table.astype({name: kind for name, kind in COLUMNS.items() if name in SCORE_COLUMNS})


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
