"""The specification of a training run: frozen dataclasses that validate themselves.

They are passed through Ray and stored on disk only as plain dicts. Where a run happens (data set, storage, workers,
devices) is not part of the specification: those are arguments of a job.
"""

import dataclasses
import math
import sys
import typing
from dataclasses import dataclass, field
from typing import Any, Self

from detector_core.errors import BadConfig

COMPUTE_DTYPES = ("auto", "fp32", "bf16")
SCHEDULES = ("constant", "cosine")
OPTIMIZERS = ("adam", "adamw")
CLASS_WEIGHTS = ("none", "balanced")
INTERPOLATIONS, CHANNEL_ORDERS = ("bilinear", "bicubic"), ("RGB", "BGR")
MAX_BLOCKS = 100
"""Maximum number of blocks in a stage of a network; Resnet-152 has 36. A model from elsewhere may declare any."""
SHOWN_LENGTH = 200
MAX_IMAGE_SIZE = 2048
"""Maximum side of a network's input in pixels."""
INIT_KEYWORDS = ("package", "hub", "none")
"""Values of ``ModelSpec.init`` that are not the path of a weights file."""


def _require(valid: bool, spec: object, name: str, rule: str) -> None:
    if not valid:
        raise BadConfig(f"{type(spec).__name__}.{name} is {_shown(getattr(spec, name))}: it must be {rule}")


def _shown(value: object) -> str:
    """The beginning of a value, for an error message of one line."""
    text = repr(value)
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}..."


class _Spec:
    """to_dict and from_dict for the dataclasses below."""

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dicts, lists, strings and numbers, which both JSON and Ray can carry."""
        return typing.cast(dict[str, Any], _plain(dataclasses.asdict(self)))  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`; omitted fields keep their defaults.

        Raises:
            BadConfig: a field does not exist, a required one is missing, or a value has the wrong type.
        """
        if not isinstance(values, dict):
            raise BadConfig(f"{cls.__name__} is {values!r}: it must be a table of fields")
        hints = typing.get_type_hints(cls)
        names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise BadConfig(f"{cls.__name__} has no field {unknown[0]!r}; its fields are {', '.join(names)}")
        try:
            return cls(**{name: _typed(value, hints[name], f"{cls.__name__}.{name}") for name, value in values.items()})
        except TypeError as error:
            raise BadConfig(f"{cls.__name__}: {error}") from None


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _plain(value: Any) -> Any:
    """Tuples as lists, at any depth."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _typed(value: Any, hint: Any, where: str) -> Any:
    """The value as the type of its annotation; ``where`` names the field in the error."""
    if isinstance(hint, type) and issubclass(hint, _Spec):
        return value if isinstance(value, hint) else hint.from_dict(value)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise BadConfig(f"{where} is {_shown(value)}: it must be a list")
        inner = typing.get_args(hint)[0]
        return tuple(_typed(item, inner, where) for item in value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= sys.float_info.max:
            raise BadConfig(f"{where} is {_shown(value)}: it must be a finite number")
        return float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise BadConfig(f"{where} is {_shown(value)}: it must be of type {hint.__name__}")
    return value


@dataclass(frozen=True, kw_only=True)
class ModelSpec(_Spec):
    """The network and its initial weights.

    Attributes:
        architecture: a name in the table of :mod:`detector_core.networks.catalog` (``resnet68``, ``vggface2``,
            ``lite-ensemble``, ...) or ``timm:NAME``.
        init: ``package`` (pretrained weights that an installed package contains), ``hub`` (downloaded from where they
            were published), ``none`` (random), or the path of a weights file.
        layout: bottleneck blocks per stage; used by ``resnet68`` only. The paper does not give it; [3, 4, 12, 3] is
            an interpretation of "68 layers" (docs/paper.md).
        dropout: probability before the last layer, for the networks that have dropout (``lite*``).
    """

    architecture: str
    init: str = "none"
    layout: tuple[int, ...] = (3, 4, 12, 3)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _require(bool(self.architecture), self, "architecture", "the name of a network")
        _require(bool(self.init), self, "init", "'package', 'hub', 'none' or the path of a weights file")
        _require(
            len(self.layout) == 4 and all(1 <= n <= MAX_BLOCKS for n in self.layout),
            self,
            "layout",
            f"four block counts from 1 to {MAX_BLOCKS}",
        )
        _require(0 <= self.dropout < 1, self, "dropout", "0 or more and below 1")


@dataclass(frozen=True, kw_only=True)
class PreprocessSpec(_Spec):
    """How a decoded image becomes the network's input; stored with the weights.

    Attributes:
        image_size: side of the square input in pixels.
        mean, std: normalization per channel in the order of ``channels``, for pixels scaled to 0-1.
        interpolation: ``bilinear`` or ``bicubic``, both with antialiasing.
        channels: channel order, ``RGB`` or ``BGR``.
    """

    image_size: int
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    channels: str = "RGB"

    def __post_init__(self) -> None:
        _require(1 <= self.image_size <= MAX_IMAGE_SIZE, self, "image_size", f"from 1 to {MAX_IMAGE_SIZE} pixels")
        _require(len(self.mean) == 3, self, "mean", "three numbers")
        _require(len(self.std) == 3 and all(s > 0 for s in self.std), self, "std", "three numbers above 0")
        _require(self.interpolation in INTERPOLATIONS, self, "interpolation", f"one of {', '.join(INTERPOLATIONS)}")
        _require(self.channels in CHANNEL_ORDERS, self, "channels", f"one of {', '.join(CHANNEL_ORDERS)}")


@dataclass(frozen=True, kw_only=True)
class AugmentSpec(_Spec):
    """Random changes of a training image, applied after resizing and before normalization.

    Attributes:
        flip: probability of a horizontal flip.
        rotate_degrees, shift, zoom: maximum rotation (degrees), shift and zoom (fractions of the side).
        brightness, contrast: maximum relative change.
        cutout: probability of cut-out; 0 trains without it.
        cutout_size: side of the square patch as a fraction of the image's side.
        crop: side in pixels of a random crop, not resized; 0 keeps the whole image. The network is trained on crops
            and evaluated on whole images.
        delivery: scales the probability of the degradations that an image suffers on its way from the camera to a
            recipient: imprecise framing, resizing, blur, noise, brightness and contrast, JPEG and WebP; 0 for none, 1
            for the probabilities in :func:`detector_core.images.augment.delivery`.
        versions: number of augmented copies of each image, in addition to the original, for which a frozen backbone
            computes features.

    """

    flip: float = 0.5
    rotate_degrees: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    brightness: float = 0.1
    contrast: float = 0.1
    cutout: float = 0.0
    cutout_size: float = 0.25
    crop: int = 0
    delivery: float = 0.0
    versions: int = 0

    def __post_init__(self) -> None:
        for name in ("flip", "cutout", "delivery"):
            _require(0 <= getattr(self, name) <= 1, self, name, "a probability from 0 to 1")
        _require(0 <= self.rotate_degrees <= 180, self, "rotate_degrees", "from 0 to 180")
        for name in ("shift", "zoom", "brightness", "contrast"):
            _require(0 <= getattr(self, name) < 1, self, name, "0 or more and below 1")
        _require(0 < self.cutout_size < 1, self, "cutout_size", "above 0 and below 1")
        for name in ("crop", "versions"):
            _require(getattr(self, name) >= 0, self, name, "0 or more")


@dataclass(frozen=True, kw_only=True)
class OptimSpec(_Spec):
    """How the weights are trained: binary cross-entropy, by default with Adam at a constant learning rate.

    Source: learning rates and epochs of the paper's variants are those of Table II, the batch size of resnet68 that of
    section III-F; all other fields are this project's.

    Attributes:
        batch_size: images per optimizer step over all workers (the global batch).
        micro_batch: images per forward and backward pass, over which BatchNorm computes its statistics.
        compute_dtype: ``fp32``, ``bf16``, or ``auto``: bf16 where it is faster. Frozen features are fp32 on a CPU.
        schedule: of the learning rate: ``constant`` (the paper mentions no schedule) or ``cosine``, which falls to 0.
        compile: whether to compile the network with ``torch.compile``.
        patience: stop after this many epochs without a lower validation loss; 0 never stops early.
        optimizer: ``adam`` or ``adamw`` (decoupled weight decay).
        weight_decay: of ``adamw``.
        warmup_steps: optimizer steps over which the learning rate rises from 0.
        head_learning_rate_factor: factor on the learning rate of the classification head, which starts at random.
        label_smoothing: 0.06 moves the targets from 0 and 1 to 0.03 and 0.97.
        class_weights: ``none``, or ``balanced``: in the training loss both classes weigh the same, however many images
            they have. The validation loss is never weighted.
        freeze: the name of a stage of the network, such as ``layer2`` or ``blocks.3``: it and everything before it keep
            their initial weights and BatchNorm statistics; empty trains everything.
        stratify: whether each batch has the sources and their classes in the proportions of the training split.
        ema: decay of the moving average of the weights that is evaluated and saved in their place; 0 for none.
    """

    learning_rate: float
    epochs: int
    batch_size: int
    micro_batch: int = 50
    compute_dtype: str = "auto"
    schedule: str = "constant"
    compile: bool = False
    patience: int = 0
    optimizer: str = "adam"
    weight_decay: float = 0.0
    warmup_steps: int = 0
    head_learning_rate_factor: float = 1.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    class_weights: str = "none"
    freeze: str = ""
    stratify: bool = False

    def __post_init__(self) -> None:
        _require(math.isfinite(self.learning_rate) and self.learning_rate > 0, self, "learning_rate", "> 0")
        for name in ("epochs", "batch_size", "micro_batch"):
            _require(getattr(self, name) >= 1, self, name, "1 or more")
        _require(self.compute_dtype in COMPUTE_DTYPES, self, "compute_dtype", f"one of {', '.join(COMPUTE_DTYPES)}")
        _require(self.schedule in SCHEDULES, self, "schedule", f"one of {', '.join(SCHEDULES)}")
        for name in ("patience", "warmup_steps", "weight_decay"):
            _require(getattr(self, name) >= 0, self, name, "0 or more")
        _require(self.optimizer in OPTIMIZERS, self, "optimizer", f"one of {', '.join(OPTIMIZERS)}")
        _require(self.class_weights in CLASS_WEIGHTS, self, "class_weights", f"one of {', '.join(CLASS_WEIGHTS)}")
        _require(self.optimizer == "adamw" or not self.weight_decay, self, "weight_decay", "0 with the optimizer adam")
        _require(self.head_learning_rate_factor > 0, self, "head_learning_rate_factor", "above 0")
        for name in ("label_smoothing", "ema"):
            _require(0 <= getattr(self, name) < 1, self, name, "0 or more and below 1")


@dataclass(frozen=True, kw_only=True)
class RunSpec(_Spec):
    """A complete training run.

    The same spec and data give the same model, bit for bit, with the same number of workers in the same
    :func:`detector_core.training.loop.environment`; otherwise up to rounding, which is noticeable in bf16.
    """

    variant: str
    model: ModelSpec
    preprocess: PreprocessSpec
    optim: OptimSpec
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    seed: int = 0

    def __post_init__(self) -> None:
        _require(bool(self.variant), self, "variant", "a name")
        _require(0 <= self.seed < 2**31, self, "seed", "from 0 to 2147483647")

    def flat(self) -> dict[str, Any]:
        """Every value by its dotted name, in the form that :meth:`replace` accepts."""
        return _flatten(self.to_dict())

    def replace(self, changes: dict[str, Any]) -> "RunSpec":
        """A copy with dotted fields changed: ``spec.replace({"optim.epochs": 3, "seed": 1})``.

        Raises:
            BadConfig: a field does not exist, or its value is not valid.
        """
        values = self.to_dict()
        for name, value in changes.items():
            *groups, last = name.split(".")
            table: Any = values
            for key in groups:
                table = table.get(key) if isinstance(table, dict) else None
            if not isinstance(table, dict) or last not in table:
                fields = list(self.flat())
                of_group = [field for field in fields if groups and field.startswith(f"{groups[0]}.")]
                raise BadConfig(f"RunSpec has no field {name!r}; its fields are {', '.join(of_group or fields)}")
            table[last] = value
        return RunSpec.from_dict(values)
