"""A version of a model with its upper threshold chosen for a place: by photographs from there.

The weights, the temperature and therefore ``p_fake`` stay. Only what is called fake changes, and with images of fakes
from the place also what is called real.
"""

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from detector_core.data.seen import Overlap
from detector_core.evaluation import calibration, report, report_html
from detector_core.evaluation.calibration import EVEN, FAKES_PASSED_LIMITS, Calibration, real_threshold
from detector_core.evaluation.explain import WORST_IMAGES
from detector_core.evaluation.intervals import Floats, Scores, images_to_bound
from detector_core.evaluation.metrics import METRICS, NO_FAKES, NO_REALS, Estimate, proportion
from detector_core.evaluation.scoring import SCORES
from detector_core.networks import artifacts
from detector_core.registry import model_card, versions

AT_THRESHOLD = ("confusion", "flag_value", "with_uncertain", "sources", "robustness", "calibration", "histogram")
"""What a report says at its thresholds, or about its probabilities, besides its metrics."""
PLACE_SPLIT = "place"
"""The ``split`` of a calibration that was chosen for a place."""


@dataclass(frozen=True, kw_only=True)
class PlaceCalibration:
    """A calibration for a place, and what its images say about it.

    Attributes:
        reals_flagged: on the images it was chosen on.
        fakes_passed: of the fakes of the place, those not called fake; undefined without fakes.
        needed: how many reals, none of them flagged, would bound the share to the requested one.
    """

    calibration: Calibration
    reals_flagged: Estimate
    fakes_passed: Estimate
    needed: int

    def describe(self, flag_at_most: float) -> str:
        """What the reals allow to say, in one sentence."""
        rate = self.reals_flagged
        assert rate.high is not None
        flagged = f"{rate.count} of {rate.of:,} reals are flagged"
        if rate.high <= flag_at_most:
            return f"{flagged}, which bounds the share to {rate.high:.2%}"
        return (
            f"{flagged}; so many bound the share only to about {rate.high:.2%}, and at least {self.needed:,} are "
            f"needed to bound it to {flag_at_most:.2%}"
        )


def choose_for_place(
    before: Calibration,
    real_logit_N: Scores,
    fake_logit_N: Scores,
    flag_at_most: float,
    chosen_on: dict[str, Any],
) -> PlaceCalibration:
    """Moves ``fake_above`` so that at most a fraction of the place's reals is flagged; it never falls below 0.5.

    With fakes, ``real_below`` is chosen as on a validation split, and never above ``fake_above``.

    Args:
        real_logit_N: of photographs from the place; at least one.
        fake_logit_N: of fakes from the place; may be empty.
        chosen_on: name and fingerprint of the images, and the weights' checksum.
    """
    fake_above = max(EVEN, _upper_threshold(before.p_fake(real_logit_N), flag_at_most))
    real_below = before.real_below
    limit = before.max_fakes_passed or FAKES_PASSED_LIMITS[0]
    if len(fake_logit_N):
        logit = np.concatenate([real_logit_N, fake_logit_N]).astype(np.float64)
        is_fake = np.arange(len(logit)) >= len(real_logit_N)
        real_below = min(EVEN, float(expit(real_threshold(is_fake, logit, limit) / before.temperature)))
    chosen = replace(
        before,
        fake_above=fake_above,
        real_below=real_below,
        max_fakes_passed=limit if len(fake_logit_N) else before.max_fakes_passed,
        chosen_on={
            **chosen_on,
            "split": PLACE_SPLIT,
            "n": len(real_logit_N) + len(fake_logit_N),
            "reals": len(real_logit_N),
            "fakes": len(fake_logit_N),
            "flag_at_most": flag_at_most,
        },
        fit={},
    )
    flagged = int((chosen.p_fake(real_logit_N) >= fake_above).sum())
    passed = int((chosen.p_fake(fake_logit_N) < fake_above).sum())
    return PlaceCalibration(
        calibration=chosen,
        reals_flagged=proportion(flagged, len(real_logit_N), NO_REALS),
        fakes_passed=proportion(passed, len(fake_logit_N), NO_FAKES),
        needed=images_to_bound(flag_at_most),
    )


def _upper_threshold(p_fake_N: Floats, flag_at_most: float) -> float:
    """The lowest threshold, in the middle between two scores, that flags at most that fraction."""
    descending = np.sort(p_fake_N)[::-1]
    highest_not_flagged = descending[int(np.floor(flag_at_most * len(descending) + 1e-9))]
    higher = descending[descending > highest_not_flagged]
    middle = (higher[-1] + highest_not_flagged) / 2 if len(higher) else highest_not_flagged
    return float(middle if middle > highest_not_flagged else min(1.0, np.nextafter(highest_not_flagged, 2)))


def add_version(models: str, version: str, chosen: Calibration) -> str:
    """Makes a copy of a version with another calibration the live one, and returns its name.

    Its reports are written again with the new thresholds, from the scores that they were made of, and so
    is its model card. ``versions.rollback`` returns to the version before.

    Raises:
        BrokenArtifact: the version is damaged.
    """
    key = json.dumps(chosen.to_dict(), sort_keys=True)

    def apply(folder: Path) -> None:
        calibration.save(str(folder), chosen)
        for path in sorted((folder / artifacts.EVALUATION).glob(f"*/{report.REPORT}")):
            _rewrite_report(path, chosen)
        (folder / model_card.CARD_FILE).write_text(model_card.render_card(folder))

    return versions.promote(f"{models}/{version}", models, add_files=apply, key=key)


def _rewrite_report(path: Path, chosen: Calibration) -> None:
    """A report with other thresholds, from its scores; where they are not in the version, without error rates.

    Metrics on changed images are left out, as their scores are not kept.
    """
    old, scores_file = json.loads(path.read_bytes()), path.with_name(SCORES)
    if not scores_file.exists():
        for stale in path.parent.iterdir():  # pages and plots at the former thresholds
            stale.unlink()
        unknown = Estimate(reason="the version has no scores: evaluate it again").to_dict()
        kept = {name: value for name, value in old.items() if name not in AT_THRESHOLD}
        new = {**kept, "threshold": chosen.fake_above, "metrics": dict.fromkeys(METRICS, unknown)}
        path.write_text(json.dumps(new, indent=2, allow_nan=False))
        return
    scores = pd.read_parquet(io.BytesIO(scores_file.read_bytes()))
    scores = scores.assign(p_fake=chosen.p_fake(scores["logit"]))
    mark = f"{report.AUDIT_WARNING} "
    audit = [warning.removeprefix(mark) for warning in old["warnings"] if warning.startswith(mark)]
    new = report.build_report(
        scores,
        chosen,
        model=old["model"],
        data=old["data"],
        split=old["split"],
        data_warnings=audit,
        overlap=Overlap.from_dict(old["overlap"]) if "overlap" in old else None,
        baselines=old.get("baselines", ()),
    )
    report_html.write(str(path.parent), scores, new, {})
    (path.parent / WORST_IMAGES).unlink(missing_ok=True)  # it marks the errors at the former threshold
