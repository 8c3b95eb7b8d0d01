"""What a search under Ray Tune is, and what it leaves: ``search.json`` marks its name, and is written again last."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from detector_core import storage
from detector_core.config import RunSpec
from detector_core.errors import OperationRefused, TrainingFailed
from detector_core.networks import variants
from detector_core.training import lr_search, plots
from detector_core.training.lr_search import Trial
from jobs.common.cli import say
from jobs.run import spec_flags

SEARCH, BEST, TRIALS, PLOT = "search.json", "best.json", "trials.csv", "objective.png"


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What a search is: two with the same plan try the same.

    Attributes:
        spec: RunSpec as a plain dict; its learning rate is the first that ``loguniform`` tries.
        rates: the rates of a grid; None for ``loguniform`` with ``samples`` trials.
    """

    name: str
    storage: str
    spec: dict[str, Any]
    fingerprint: str
    rates: list[float] | None
    samples: int | None
    objective: str
    scheduler: str
    workers: int

    @property
    def folder(self) -> str:
        """The search's folder."""
        return storage.join(self.storage, self.name)

    @property
    def trials(self) -> int:
        """How many trials it runs."""
        return len(self.rates) if self.rates else int(self.samples or 0)


def claim(plan: SearchPlan, *, resume: bool) -> None:
    """Marks a name as taken by writing ``search.json``.

    Raises:
        OperationRefused: the name is taken and ``resume`` was not asked for, or the search was started otherwise.
    """
    where = storage.join(plan.folder, SEARCH)
    if not storage.exists(where):
        if storage.exists(plan.folder):
            raise OperationRefused(f"{plan.folder} exists and is not a search: choose another --name")
        if resume:
            say(f"{plan.folder}: there is no such search yet, it starts from the beginning")
        storage.write_bytes(where, json.dumps({"plan": asdict(plan)}, indent=2).encode())
        return
    if not resume:
        raise OperationRefused(f"{plan.folder} exists: choose another --name, or go on with it with --resume")
    before = {**json.loads(storage.read_bytes(where))["plan"], "storage": plan.storage}  # a mount may have moved
    changed = spec_flags.differences(before, asdict(plan))
    if changed:
        raise OperationRefused(f"{plan.folder} was started otherwise ({'; '.join(changed)}): use another --name")


def write(plan: SearchPlan, trials: list[Trial], data_name: str, *, cpus: int, compute_dtype: str) -> dict[str, Any]:
    """Writes the results of a search, ``search.json`` last, and returns the result line.

    Args:
        cpus: cores of each worker of a trial.
        compute_dtype: in which the trials computed.

    Raises:
        TrainingFailed: no trial finished an epoch; the reasons are in ``trials.csv``.
    """
    spec = RunSpec.from_dict(plan.spec)
    trials = sorted(trials, key=lambda trial: -trial.learning_rate)
    frame = lr_search.to_frame(trials, plan.spec)
    storage.write_bytes(storage.join(plan.folder, TRIALS), frame.to_csv(index=False).encode())
    table_ii = variants.spec_for(spec.variant).optim.learning_rate if spec.variant in variants.VARIANTS else None
    title = f"{spec.variant} on {data_name}"
    plot = plots.search_results(trials, plan.objective, title, table_ii)
    storage.write_bytes(storage.join(plan.folder, PLOT), plot)
    failed = [
        f"{trial.name} ({trial.learning_rate:g}): {trial.error}" for trial in trials if trial.status == lr_search.FAILED
    ]
    for line in failed:
        say(f"failed trial {line}")
    say(lr_search.format_table(trials, plan.objective))
    best = lr_search.best(trials, plan.objective)
    if best is None:
        raise TrainingFailed(f"{plan.folder}: none of {len(trials)} trials has an objective; see {TRIALS}")
    # With what the trials resolved, so that training from this file computes what the best trial computed.
    best_spec = spec.replace({"optim.learning_rate": best.learning_rate, "optim.compute_dtype": compute_dtype})
    where = storage.join(plan.folder, BEST)
    content = {**best_spec.to_dict(), spec_flags.CPUS_PER_WORKER: cpus}
    storage.write_bytes(where, json.dumps(content, indent=2).encode())
    result = {
        "search": plan.folder,
        "variant": spec.variant,
        "objective": plan.objective,
        "best": {"learning_rate": best.learning_rate, plan.objective: best.score(plan.objective), "spec": where},
        "table_ii": table_ii,
        "trials": len(trials),
        "failed": len(failed),
    }
    summary = {"plan": asdict(plan), "result": result}
    storage.write_bytes(storage.join(plan.folder, SEARCH), json.dumps(summary, indent=2).encode())
    return result


def verdict(result: dict[str, Any]) -> str:
    """The found rate beside Table II's, for a terminal."""
    best, table_ii = result["best"], result["table_ii"]
    paper = f"{table_ii:g}" if table_ii else "-"
    return (
        f"{result['variant']}: found {best['learning_rate']:.3g} ({result['objective']} "
        f"{best[result['objective']]:.4f} on validation), Table II {paper}\n"
        f"train with it: python -m jobs.train {result['variant']} --spec {best['spec']} ..."
    )
