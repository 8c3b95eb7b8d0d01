"""What a search is and which files it writes.

``search.json`` is written first, with the plan, to reserve the name of the search; and last, with the result.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.errors import OperationRefused, TrainingFailed
from detector_core.networks import variants
from detector_core.training import lr_search, plots
from detector_core.training.lr_search import Trial
from jobs.common.cli import say
from jobs.run import spec_flags

LEARNING_RATE = "learning_rate"
"""The key of the learning rate in the configuration of a trial."""
SEARCH, BEST, TRIALS, PLOT = "search.json", "best.json", "trials.csv", "objective.png"


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """The settings of a search. A search can be resumed only with the same plan.

    Attributes:
        spec: RunSpec as a plain dict; its learning rate is the first one that ``loguniform`` tries.
        fingerprint: of the data set.
        learning_rates: the values of a grid search; None for ``loguniform``.
        samples: the number of trials of ``loguniform``; None for a grid search.
        vary: other fields of the RunSpec, by dotted name, and the values to try of each.
        workers: Ray Train workers of each trial.
    """

    name: str
    storage: str
    spec: dict[str, Any]
    fingerprint: str
    learning_rates: list[float] | None
    samples: int | None
    objective: str
    scheduler: str
    workers: int
    vary: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The search's folder."""
        return storage.join(self.storage, self.name)

    @property
    def trials(self) -> int:
        """The number of trials."""
        if not self.learning_rates:
            return int(self.samples or 0)
        return len(self.learning_rates) * math.prod(map(len, self.vary.values()))


def varied(config: dict[str, Any]) -> dict[str, Any]:
    """The other fields in the configuration of a trial, without its learning rate."""
    return {name: value for name, value in config.items() if name != LEARNING_RATE}


def claim(plan: SearchPlan, *, resume: bool) -> None:
    """Reserves the name of a search by writing ``search.json``.

    Raises:
        OperationRefused: the name is taken and ``resume`` is off, or the search was started with another plan.
    """
    path = storage.join(plan.folder, SEARCH)
    if not storage.exists(path):
        if storage.exists(plan.folder):
            raise OperationRefused(f"{plan.folder} exists and is not a search: choose another --name")
        if resume:
            say(f"{plan.folder}: there is no such search yet, so it starts from the beginning")
        storage.write_bytes(path, json.dumps({"plan": asdict(plan)}, indent=2).encode())
        return
    if not resume:
        raise OperationRefused(f"{plan.folder} exists: choose another --name, or continue it with --resume")
    before = {
        "vary": {},
        **json.loads(storage.read_bytes(path))["plan"],
        "storage": plan.storage,
    }  # the folder may have moved
    changed = spec_flags.differences(before, asdict(plan))
    if changed:
        raise OperationRefused(
            f"{plan.folder} was started with different settings ({'; '.join(changed)}): use another --name"
        )


def write(plan: SearchPlan, trials: list[Trial], data_name: str, *, cpus: int, compute_dtype: str) -> dict[str, Any]:
    """Writes the results of a search, ``search.json`` last, and returns the result line.

    Args:
        cpus: cores per worker of the trials.
        compute_dtype: the compute dtype of the trials.

    Raises:
        TrainingFailed: no trial has an objective; the reasons are in ``trials.csv``.
    """
    spec = RunSpec.from_dict(plan.spec)
    trials = sorted(trials, key=lambda trial: -trial.learning_rate)
    frame = lr_search.to_frame(trials, plan.spec)
    storage.write_bytes(storage.join(plan.folder, TRIALS), frame.to_csv(index=False).encode())
    table_2_learning_rate = (
        variants.spec_for(spec.variant).optim.learning_rate if spec.variant in variants.VARIANTS else None
    )
    title = f"{spec.variant} on {data_name}"
    plot = plots.search_results(trials, plan.objective, title, table_2_learning_rate)
    storage.write_bytes(storage.join(plan.folder, PLOT), plot)
    failed = [
        f"{trial.name} ({trial.learning_rate:g}): {trial.error}" for trial in trials if trial.status == lr_search.FAILED
    ]
    for line in failed:
        say(f"failed trial {line}")
    say(lr_search.format_table(trials, plan.objective))
    best = lr_search.best(trials, plan.objective)
    if best is None:
        raise TrainingFailed(
            f"{plan.folder}: none of {len(trials)} trials finished an epoch with a {plan.objective}: see {TRIALS}"
        )
    # With the compute dtype that "auto" was in the trials, so that training from this file repeats the best trial.
    best_spec = spec.replace(
        {"optim.learning_rate": best.learning_rate, **best.settings, "optim.compute_dtype": compute_dtype}
    )
    best_path = storage.join(plan.folder, BEST)
    content = {**best_spec.to_dict(), spec_flags.CPUS_PER_WORKER: cpus}
    storage.write_bytes(best_path, json.dumps(content, indent=2).encode())
    result = {
        "search": plan.folder,
        "variant": spec.variant,
        "objective": plan.objective,
        "best": {
            "learning_rate": best.learning_rate,
            **({"settings": best.settings} if plan.vary else {}),
            plan.objective: best.score(plan.objective),
            "spec": best_path,
        },
        "table_2_learning_rate": table_2_learning_rate,
        "trials": len(trials),
        "failed": len(failed),
    }
    summary = {"plan": asdict(plan), "result": result}
    storage.write_bytes(storage.join(plan.folder, SEARCH), json.dumps(summary, indent=2).encode())
    return result


def format_result(result: dict[str, Any]) -> str:
    """The best learning rate next to that of Table II, as text for a terminal."""
    best, table_2_learning_rate = result["best"], result["table_2_learning_rate"]
    paper = f"{table_2_learning_rate:g}" if table_2_learning_rate else "-"
    settings = "".join(f", {name} {value}" for name, value in best.get("settings", {}).items())
    return (
        f"{result['variant']}: best learning rate {best['learning_rate']:.3g}{settings} ({result['objective']} "
        f"{best[result['objective']]:.4f} on the validation split), Table II {paper}\n"
        f"to train with it: python -m jobs.train {result['variant']} --spec {best['spec']} ..."
    )
