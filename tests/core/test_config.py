"""detector_core.config: validation, conversion to and from plain dicts, and changes by dotted names."""

import dataclasses
import json
from typing import Any

import pytest

from detector_core.config import AugmentSpec, ModelSpec, OptimSpec, PreprocessSpec, RunSpec
from detector_core.errors import BadConfig
from detector_core.networks.variants import VARIANTS, spec_for

VALID: dict[type, dict[str, Any]] = {
    ModelSpec: {"architecture": "resnet68"},
    PreprocessSpec: {"image_size": 224},
    AugmentSpec: {},
    OptimSpec: {"learning_rate": 0.001, "epochs": 1, "batch_size": 8},
    RunSpec: {
        "variant": "resnet68",
        "model": ModelSpec(architecture="resnet68"),
        "preprocess": PreprocessSpec(image_size=224),
        "optim": OptimSpec(learning_rate=0.001, epochs=1, batch_size=8),
    },
}
NAN = float("nan")
INVALID: list[tuple[type, str, Any]] = [
    (ModelSpec, "architecture", ""),
    (ModelSpec, "init", ""),
    (ModelSpec, "layout", (3, 4, 6)),
    (ModelSpec, "layout", (3, 0, 6, 3)),
    (ModelSpec, "dropout", 1.0),
    (PreprocessSpec, "image_size", 0),
    (PreprocessSpec, "mean", (0.5,)),
    (PreprocessSpec, "std", (0.5, 0.5, 0.0)),
    (PreprocessSpec, "interpolation", "nearest"),
    (PreprocessSpec, "channels", "GBR"),
    (AugmentSpec, "flip", 1.5),
    (AugmentSpec, "cutout", -0.1),
    (AugmentSpec, "rotate_degrees", 181.0),
    (AugmentSpec, "shift", 1.0),
    (AugmentSpec, "zoom", -0.1),
    (AugmentSpec, "brightness", 1.0),
    (AugmentSpec, "contrast", -1.0),
    (AugmentSpec, "cutout_size", 0.0),
    (AugmentSpec, "cutout_size", 1.0),
    (AugmentSpec, "delivery", 1.5),
    (AugmentSpec, "crop", -1),
    (AugmentSpec, "versions", -1),
    (OptimSpec, "learning_rate", -1.0),
    (OptimSpec, "learning_rate", NAN),
    (OptimSpec, "learning_rate", float("inf")),
    (OptimSpec, "epochs", 0),
    (OptimSpec, "batch_size", 0),
    (OptimSpec, "micro_batch", 0),
    (OptimSpec, "compute_dtype", "fp16"),
    (OptimSpec, "schedule", "step"),
    (OptimSpec, "patience", -1),
    (OptimSpec, "optimizer", "sgd"),
    (OptimSpec, "weight_decay", 0.1),
    (OptimSpec, "weight_decay", -0.1),
    (OptimSpec, "warmup_steps", -1),
    (OptimSpec, "head_learning_rate_factor", 0.0),
    (OptimSpec, "label_smoothing", 1.0),
    (OptimSpec, "ema", 1.0),
    (RunSpec, "variant", ""),
    (RunSpec, "seed", -1),
    (RunSpec, "seed", 2**31),
]


@pytest.mark.parametrize(("spec", "name", "value"), INVALID)
def test_the_error_for_an_invalid_value_names_its_field(spec: type, name: str, value: Any) -> None:
    spec(**VALID[spec])
    with pytest.raises(BadConfig) as error:
        spec(**{**VALID[spec], name: value})
    assert str(error.value).startswith(f"{spec.__name__}.{name} is {value!r}: it must be ")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_spec_can_be_converted_to_json_and_back(variant: str) -> None:
    spec = spec_for(variant, {"seed": 7, "model.layout": [1, 1, 1, 1]})
    assert RunSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_omitted_fields_keep_their_defaults() -> None:
    assert AugmentSpec.from_dict({"cutout": 0.5}) == AugmentSpec(cutout=0.5)


def test_an_int_is_accepted_for_a_float() -> None:
    assert AugmentSpec.from_dict({"cutout": 1}) == AugmentSpec(cutout=1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochz": 3}, "OptimSpec has no field 'epochz'; its fields are learning_rate, epochs"),
        ({"epochs": "3"}, "OptimSpec.epochs is '3': it must be of type int"),
        ({"epochs": 3.5}, "OptimSpec.epochs is 3.5: it must be of type int"),
        ({"epochs": True}, "OptimSpec.epochs is True: it must be of type int"),
        ({"compile": 1}, "OptimSpec.compile is 1: it must be of type bool"),
        ({"learning_rate": None}, "OptimSpec.learning_rate is None: it must be of type float"),
        ({"epochs": 3}, "OptimSpec: .*learning_rate"),
        ([], "OptimSpec is \\[\\]: it must be a table of fields"),
    ],
)
def test_errors_of_from_dict_name_the_field(values: Any, message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        OptimSpec.from_dict(values)


def test_every_item_of_a_list_is_checked() -> None:
    with pytest.raises(BadConfig, match=r"ModelSpec\.layout is 'x': it must be of type int"):
        ModelSpec.from_dict({"architecture": "resnet68", "layout": [3, "x", 4, 3]})
    with pytest.raises(BadConfig, match=r"ModelSpec\.layout is 3: it must be a list"):
        ModelSpec.from_dict({"architecture": "resnet68", "layout": 3})


def test_replace_changes_only_the_dotted_fields() -> None:
    spec = spec_for("resnet68")
    changed = spec.replace({"optim.epochs": 3, "preprocess.mean": [0, 0, 0], "seed": 1})
    assert changed.optim == dataclasses.replace(spec.optim, epochs=3)
    assert changed.preprocess == dataclasses.replace(spec.preprocess, mean=(0.0, 0.0, 0.0))
    assert (changed.seed, spec.seed) == (1, 0)
    assert (changed.model, changed.augment, changed.variant) == (spec.model, spec.augment, spec.variant)


@pytest.mark.parametrize("name", ["epochs", "optim.epoch", "optim.epochs.x", "optim.x.y", "a.b.c", ""])
def test_the_error_of_replace_names_a_field_that_does_not_exist(name: str) -> None:
    with pytest.raises(BadConfig, match=f"RunSpec has no field '{name}'"):
        spec_for("resnet68").replace({name: 3})


def test_replace_validates_values() -> None:
    with pytest.raises(BadConfig, match=r"OptimSpec\.epochs is 0: it must be 1 or more"):
        spec_for("resnet68").replace({"optim.epochs": 0})


def test_a_spec_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec_for("resnet68").seed = 3  # type: ignore[misc]
