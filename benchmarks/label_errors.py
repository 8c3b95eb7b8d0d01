"""How many flipped tags of a generator that the model never saw the search for label errors finds.

  python -m benchmarks.label_errors --data data/faces
  python -m benchmarks.label_errors --data data/faces --model runs/lite-frozen --cache FOLDER

The tags are those of ``python -m benchmarks.relearn``; labels are flipped at random, three draws each. Where cleanlab
is installed (it is no dependency), what its confident learning marks from the same confidences is counted, too.

The last line on stdout is one JSON object: rows with tags, share, flipped, found, wrong (correct labels that are
doubted) and same_as_cleanlab (of the three draws; null without cleanlab).
"""

import argparse
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine, relearn
from detector_core import storage
from detector_core.data import manifest
from detector_core.networks import artifacts
from detector_core.registry import starter
from detector_core.training import label_errors
from detector_core.training.round_inputs import LiveModel

TAGS = (30, 60, 100, 200)
SHARES = (0.0, 0.2, 0.3)
DRAWS = 3


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DATASET", help="a data set made by jobs.prepare")
    parser.add_argument("--model", metavar="RUN_OR_MODEL", help="a run's folder or a model folder [the starter model]")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keeps features for another run [none]")
    arguments = parser.parse_args()
    print(machine.describe(), flush=True)
    model = Path(artifacts.find(arguments.model or Path(starter.__file__).parents[1] / starter.NAME))
    data = manifest.load(storage.absolute(arguments.data))
    with tempfile.TemporaryDirectory() as work:
        tags = relearn.load(LiveModel.load(model).trunk, data, Path(work), arguments.cache)["tags"]
    feature_ND, truth_N = tags.inputs.feature_ND.numpy(), tags.is_fake
    rows = [_row(feature_ND[:count], truth_N[:count], share) for count in TAGS for share in SHARES]
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    print(json.dumps({"rows": rows}))


def _row(feature_ND: NDArray[np.float32], truth_N: NDArray[np.bool_], share: float) -> dict[str, Any]:
    """The sums over all draws."""
    flipped = found = wrong = same = 0
    for seed in range(DRAWS):
        flipped_N = np.random.default_rng(seed).permutation(len(truth_N)) < share * len(truth_N)
        given_N = truth_N ^ flipped_N
        confidence_N = label_errors.confidences(feature_ND, given_N)
        doubtful_N = label_errors.is_doubtful(confidence_N, given_N)
        flipped, found = flipped + int(flipped_N.sum()), found + int((doubtful_N & flipped_N).sum())
        wrong += int((doubtful_N & ~flipped_N).sum())
        same += _cleanlab(confidence_N, given_N, doubtful_N)
    row = {"tags": len(truth_N), "share": share, "flipped": flipped, "found": found, "wrong": wrong}
    return row | {"same_as_cleanlab": same if importlib.util.find_spec("cleanlab") else None}


def _cleanlab(confidence_N: NDArray[np.float64], given_N: NDArray[np.bool_], doubtful_N: NDArray[np.bool_]) -> bool:
    """Whether cleanlab marks the same tags; False without cleanlab."""
    if importlib.util.find_spec("cleanlab") is None:
        return False
    from cleanlab.filter import find_label_issues  # type: ignore[import-not-found]  # no dependency

    p_fake_N = np.where(given_N, confidence_N, 1 - confidence_N)
    probability_NK = np.stack([1 - p_fake_N, p_fake_N], axis=1)
    marked_N = find_label_issues(given_N.astype(int), probability_NK, filter_by="confident_learning", n_jobs=1)
    return bool((marked_N == doubtful_N).all())


if __name__ == "__main__":
    main()
