"""How much the choice of a threshold depends on the validation images that happen to be there.

  python -m benchmarks.thresholds runs/lite-ensemble --data data/faces

Scores the validation split once, then draws it again and again with replacement: the threshold is chosen on the images
drawn and tried on those left out. For each way of choosing prints the standard deviation of the threshold and both
error rates on the images left out.

The last line on stdout is one JSON object: rows.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import machine
from detector_core import labels, storage
from detector_core.data import manifest
from detector_core.evaluation import scoring
from detector_core.evaluation.calibration import equal_cost_threshold, lowest_rates_threshold
from detector_core.networks import artifacts

RULES = {"lowest error rates": lowest_rates_threshold, "fitted curve": equal_cost_threshold}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="a run's folder or a model folder")
    parser.add_argument("--data", required=True, metavar="DATASET", help="a data set made by jobs.prepare")
    parser.add_argument("--draws", type=int, default=200, metavar="N", help="[%(default)s]")
    arguments = parser.parse_args()
    print(machine.describe(), flush=True)
    data = manifest.load(storage.absolute(arguments.data))
    rows = data.split("valid")
    network, artifact = artifacts.load(Path(artifacts.find(arguments.model)))
    logit_N = scoring.score(network, rows, data.root, artifact.spec.preprocess)["logit"].to_numpy(np.float64)
    table = compare(labels.is_fake(rows["label"]), logit_N, arguments.draws)
    print(table.to_string(index=False, float_format="%.3f"))
    print(json.dumps({"rows": table.to_dict("records")}))


def compare(is_fake_N: np.ndarray, logit_N: np.ndarray, draws: int) -> pd.DataFrame:
    """One row for each of RULES: columns rule, deviation (of the threshold), fakes_passed_rate, reals_flagged_rate."""
    random, everything = np.random.default_rng(0), np.arange(len(logit_N))
    outcomes: dict[str, list[tuple[float, float, float]]] = {rule: [] for rule in RULES}
    while len(outcomes["fitted curve"]) < draws:
        drawn = random.integers(0, len(logit_N), len(logit_N))
        left = np.setdiff1d(everything, drawn)
        if any(part.all() or not part.any() for part in (is_fake_N[drawn], is_fake_N[left])):
            continue  # one class is missing
        for rule, choose in RULES.items():
            threshold = choose(is_fake_N[drawn], logit_N[drawn])
            passed = float(np.mean(logit_N[left][is_fake_N[left]] < threshold))
            flagged = float(np.mean(logit_N[left][~is_fake_N[left]] >= threshold))
            outcomes[rule].append((threshold, passed, flagged))
    rows = []
    for rule, outcome in outcomes.items():
        thresholds, passed_rates, flagged_rates = np.array(outcome).T
        rows.append((rule, thresholds.std(), passed_rates.mean(), flagged_rates.mean()))
    return pd.DataFrame(rows, columns=["rule", "deviation", "fakes_passed_rate", "reals_flagged_rate"])


if __name__ == "__main__":
    main()
