"""The flags that say what to train, and the RunSpec that results from them: shared by every job that trains."""

import argparse
import json
from typing import Any

from detector_core import storage
from detector_core.config import INIT_KEYWORDS, RunSpec
from detector_core.errors import BadConfig
from detector_core.networks.variants import spec_for

# flag -> (field of the RunSpec, type, help)
_OVERRIDES: dict[str, tuple[str, type, str]] = {
    "--epochs": ("optim.epochs", int, "passes over the training split"),
    "--image-size": ("preprocess.image_size", int, "side of the network's square input, pixels"),
    "--batch-size": ("optim.batch_size", int, "global batch of one optimizer step, over all workers"),
    "--micro-batch": ("optim.micro_batch", int, "images per forward pass; lower it if memory runs out"),
    "--freeze": (
        "optim.freeze",
        str,
        "train only what comes after this stage of the network, such as layer2 or blocks.3; a wrong name lists them",
    ),
    "--init": (
        "model.init",
        str,
        "initial weights: package (pretrained, from an installed package), hub (pretrained, downloaded), none (random) "
        "or a file",
    ),
    "--seed": (
        "seed",
        int,
        "random seed. The same spec, seed, data, workers, threads (cores per worker), compute dtype and machine type "
        "give the same result, bit for bit. A different number of workers changes it by rounding; a different number "
        "of threads changes it noticeably if a CPU computes in bf16",
    ),
}
CPUS_PER_WORKER = "cpus_per_worker"
"""A key in the best.json of jobs.tune, next to the fields of the RunSpec: the cores per worker of its trials."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that override the settings of a variant."""
    group = parser.add_argument_group("what to train (default: the settings of the variant)")
    for flag, (field, kind, text) in _OVERRIDES.items():
        group.add_argument(flag, type=kind, default=None, metavar=flag[2:].upper(), help=f"{text} (field {field})")
    group.add_argument(
        "--spec",
        metavar="FILE",
        help="a RunSpec as JSON (file or URI), e.g. best.json of jobs.tune; other flags override its fields",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="any other field, e.g. --set optim.schedule=cosine --set augment.cutout=0.8; may be repeated",
    )


def from_flags(arguments: argparse.Namespace, variant: str) -> RunSpec:
    """The settings of a variant, or the ``--spec`` file, with the flags applied to them.

    Raises:
        BadConfig: a flag, field or file is invalid; the message names it.
        UnknownVariant: there is no such variant; the message suggests the nearest name.
    """
    changes: dict[str, Any] = {}
    for flag, (field, _, _) in _OVERRIDES.items():
        value = getattr(arguments, flag[2:].replace("-", "_"))
        if value is not None:
            changes[field] = value
    for item in arguments.set:
        field, equals, text = item.partition("=")
        if not equals:
            raise BadConfig(f"--set {item}: give FIELD=VALUE, e.g. --set optim.schedule=cosine")
        changes[field] = _value(text)
    if changes.get("model.init") not in (None, *INIT_KEYWORDS):
        changes["model.init"] = storage.absolute(changes["model.init"])
    if not arguments.spec:
        return spec_for(variant, changes)
    spec = _read(arguments.spec)
    if spec.variant != variant:
        raise BadConfig(f"--spec {arguments.spec} is for {spec.variant}, and the command says {variant}")
    return spec.replace(changes)


def recorded_cpus(spec_file: str | None) -> int | None:
    """The cores per worker that best.json of jobs.tune records; None for other spec files.

    Raises:
        BadConfig: the file does not exist, is not JSON, or what it records is not a number of cores.
    """
    cpus = _read_json(spec_file).get(CPUS_PER_WORKER) if spec_file else None
    if cpus is not None and (type(cpus) is not int or cpus < 1):
        raise BadConfig(f"--spec {spec_file}: {CPUS_PER_WORKER} is {cpus!r}: it must be a number of cores, 1 or more")
    return cpus


def differences(before: Any, now: Any, field: str = "") -> list[str]:
    """The fields (with dots) in which two specs as plain dicts differ, each with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(set(before) | set(now))
        return [
            line for key in keys for line in differences(before.get(key), now.get(key), f"{field}.{key}".strip("."))
        ]
    return [] if before == now else [f"{field} was {before!r}, now {now!r}"]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read(path: str) -> RunSpec:
    values = _read_json(path)
    return RunSpec.from_dict({name: value for name, value in values.items() if name != CPUS_PER_WORKER})


def _read_json(path: str) -> dict[str, Any]:
    try:
        values = json.loads(storage.read_bytes(path))
    except FileNotFoundError:
        raise BadConfig(f"--spec {path}: there is no such file") from None
    except ValueError as error:
        raise BadConfig(f"--spec {path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise BadConfig(f"--spec {path} is not a RunSpec: it must be a JSON object")
    return values
