"""One round of relearning: accepted tags -> candidates, one per rung of the ladder -> the gate -> the best of them.

Rungs, the cheapest first: ``thresholds`` chooses temperature and thresholds again, with the tags weighed in; ``head``
also trains the last layer anew on frozen features, with replay of the training split (:mod:`.relearn`); ``network``
fine-tunes the whole network (:mod:`.fine_tuning`). Everything is drawn from the seed and the images, so a round that
died gives the same result when it is started again.

Not in this module: what is written of a candidate (:mod:`.relearned_model`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from detector_core import labels
from detector_core.data.manifest import Manifest
from detector_core.data.sources import SOURCE
from detector_core.evaluation import calibration, gate
from detector_core.evaluation.calibration import Calibration
from detector_core.evaluation.gate import Condition, Paired
from detector_core.networks.factory import build
from detector_core.networks.frozen import load_trained_state
from detector_core.training import label_errors, relearn
from detector_core.training.relearn import Trunk
from detector_core.training.round_inputs import Images, LiveModel, RoundImages

THRESHOLDS, HEAD, NETWORK = "thresholds", "head", "network"
RUNGS: Final = (THRESHOLDS, HEAD, NETWORK)
CALIBRATION_TAG_WEIGHT: Final = 0.25
"""The largest part of the weight, in the choice of temperature and thresholds, that comes from the tags."""
TAG_WEIGHT_COST: Final = 0.01
"""What the weight of the tags may cost on the validation split: nats of cross-entropy per image above that of the best
weight."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a rung has learned.

    Attributes:
        rung: one of :data:`RUNGS`.
        trunk: the new network with its last layer.
        weights: those that differ from the live model's, as they are stored.
        tag_weight: part of the last layer's loss that came from the tags; None if it was not trained alone.
    """

    rung: str
    trunk: Trunk
    weights: Mapping[str, torch.Tensor]
    tag_weight: float | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A new model on trial: what was learned, its temperature and thresholds, and the conditions of the gate."""

    learned: Learned
    calibration: Calibration
    conditions: Sequence[Condition]

    @property
    def rung(self) -> str:
        """One of :data:`RUNGS`."""
        return self.learned.rung

    @property
    def passed(self) -> bool:
        """Whether all conditions hold."""
        return all(condition.passed for condition in self.conditions)

    @property
    def held_out_errors(self) -> int:
        """Errors on the held-out tags, of which the candidate with the fewest is chosen."""
        return self.conditions[-1].new


def doubtful_tags(images: RoundImages) -> dict[str, str]:
    """The tags whose label is probably wrong, held out or not, by id, and why (:mod:`.label_errors`)."""
    parts = (images.tags, images.held_out)
    rows = pd.concat([part.rows for part in parts])
    feature_ND = torch.cat([part.inputs.feature_ND for part in parts]).numpy()
    is_fake_N = labels.is_fake(rows["label"])
    confidence_N = label_errors.confidences(feature_ND, is_fake_N)
    doubtful_N = label_errors.is_doubtful(confidence_N, is_fake_N)
    return dict.fromkeys(rows["id"][doubtful_N], "the other tags contradict its label (cross-validated confidence)")


def learn_thresholds(live: LiveModel) -> Learned:
    """The rung that changes no weight."""
    return Learned(rung=THRESHOLDS, trunk=live.trunk, weights={})


def learn_head(live: LiveModel, images: RoundImages, *, seed: int, replay: bool = True) -> Learned:
    """Trains the last layer with several weights of the tags, and keeps the largest one that costs little.

    It costs at most TAG_WEIGHT_COST on the validation split, which shows what the network would forget.

    Args:
        seed: of the batches and of dropout.
        replay: whether the old training images are replayed; only benchmarks turn it off.
    """
    if not replay:
        return _learn_head(live, images, 1.0, seed=seed, replay=False)
    weights = relearn.tag_weights(len(images.tags.rows), len(images.train.rows))
    learned = [_learn_head(live, images, weight, seed=seed, replay=True) for weight in weights]
    losses = [_loss(images.valid, each.trunk) for each in learned]
    return next(each for each, loss in zip(learned, losses, strict=True) if loss <= min(losses) + TAG_WEIGHT_COST)


def _learn_head(live: LiveModel, images: RoundImages, weight: float, *, seed: int, replay: bool) -> Learned:
    layer = relearn.fit_last_layer(
        live.trunk,
        images.tags.inputs,
        images.tags.rows["label"],
        images.train.inputs if replay else None,
        images.train.rows["label"] if replay else None,
        weight=weight,
        seed=seed,
    )
    state = {f"{live.trunk.name}.{name}": value for name, value in layer.state_dict().items()}
    weights = live.as_stored(state)
    layer.load_state_dict({name.removeprefix(f"{live.trunk.name}."): value for name, value in weights.items()})
    return Learned(rung=HEAD, trunk=live.trunk.with_last_layer(layer), weights=weights, tag_weight=weight)


def _loss(images: Images, trunk: Trunk) -> float:
    """The cross-entropy of a network, in nats per image, with the temperature that suits it."""
    chosen = calibration.choose(images.is_fake, images.logits(trunk), chosen_on={})
    return float(log_loss(images.is_fake, chosen.p_fake(images.logits(trunk)), labels=[False, True]))


def learned_network(live: LiveModel, weights: Mapping[str, torch.Tensor]) -> Learned:
    """What fine-tuning has given: ``weights`` of the whole network, but for frozen backbones."""
    stored = live.as_stored(weights)
    network = build(live.artifact.spec.model, pretrained=False)
    load_trained_state(network, stored)
    return Learned(rung=NETWORK, trunk=Trunk(network, live.artifact.spec.preprocess), weights=stored)


def try_candidate(learned: Learned, live: LiveModel, images: RoundImages, data: Manifest) -> Candidate:
    """Chooses the thresholds of what was learned, and checks it against the live model.

    Args:
        data: the data set, whose name the calibration records.
    """
    chosen = recalibrate(learned.trunk, images.valid, images.tags if learned.rung == THRESHOLDS else None, data)

    def p_fake(part: Images) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return live.calibration.p_fake(part.logits(live.trunk)), chosen.p_fake(part.logits(learned.trunk))

    pairs = []
    for part in (images.test, images.held_out):
        before_N, after_N = p_fake(part)
        sources = part.rows[SOURCE].to_numpy(dtype=str) if SOURCE in part.rows else None
        pairs.append(
            Paired(
                is_fake_N=part.is_fake,
                live_N=before_N >= live.calibration.fake_above,
                new_N=after_N >= chosen.fake_above,
                source_N=sources,
            )
        )
    conditions = gate.check(*pairs)
    if images.canary is not None:
        before_N, after_N = p_fake(images.canary)
        verdicts = calibration.verdicts(before_N, live.calibration), calibration.verdicts(after_N, chosen)
        conditions.insert(-1, gate.unchanged(list(images.canary.rows["name"]), *verdicts))
    return Candidate(learned=learned, calibration=chosen, conditions=conditions)


def recalibrate(trunk: Trunk, valid: Images, tags: Images | None, data: Manifest) -> Calibration:
    """Chooses temperature and thresholds on the validation split, with tags weighed in by repeating one or the other.

    Args:
        tags: tags that the network has not learnt from; None for the validation split alone.
    """
    logit_N, is_fake_N = valid.logits(trunk), valid.is_fake
    chosen_on: dict[str, Any] = {
        "fingerprint": data.fingerprint,
        "name": data.name,
        "split": "valid",
        "n": len(valid.rows),
    }
    if tags is not None:
        allowed = CALIBRATION_TAG_WEIGHT / (1 - CALIBRATION_TAG_WEIGHT) * len(valid.rows)
        times, valid_times = max(1, int(allowed // len(tags.rows))), max(1, math.ceil(len(tags.rows) / allowed))
        logit_N = np.concatenate([np.tile(logit_N, valid_times), np.tile(tags.logits(trunk), times)])
        is_fake_N = np.concatenate([np.tile(is_fake_N, valid_times), np.tile(tags.is_fake, times)])
        chosen_on |= {"tags": len(tags.rows), "times": times, "valid_times": valid_times}
    return calibration.choose(is_fake_N, logit_N, chosen_on=chosen_on)


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the fewest errors on held-out tags among those that pass, or else among all."""
    return min(candidates, key=lambda candidate: (not candidate.passed, candidate.held_out_errors))
