"""The model card of a version, ``MODEL_CARD.md``: what it is, what it is worth, where it fails, what it is for.

Written by promotion from the version's own files; nothing in it is typed by hand.
"""

from pathlib import Path
from typing import Any

from detector_core.evaluation import calibration
from detector_core.evaluation.calibration import Calibration
from detector_core.evaluation.metrics import METRICS
from detector_core.evaluation.report import format_percent
from detector_core.labels import SPLITS
from detector_core.networks import artifacts
from detector_core.networks.artifacts import Artifact
from detector_core.registry import parity_gate, runtime_files, versions
from detector_core.registry.parity_gate import PrecisionResult
from detector_core.registry.runtime_files import RuntimeRecord

CARD_FILE = "MODEL_CARD.md"
GENERATED = """\
> **GENERATED DEMO DATA. This model has never seen a photograph.** It was trained on images that a program painted,
> to show that the chain works. Its figures say nothing about photographs; do not judge anyone's image by it.
"""
SPELT_OUT = {
    "fakes_passed_rate": "**fakes passed** (a fake is called real)",
    "reals_flagged_rate": "**reals flagged** (a real photograph is called fake)",
}
INTENDED = """\
## What it is for

- To give a person who looks at an image of a face one more hint whether it was photographed or generated. The
  verdict is a probability, not a proof.
- Not for decisions about a person (access, employment, moderation without appeal, evidence in a court) by this verdict
  alone.
- Not for images without a face, for drawings, for photographs that were retouched or whose face was swapped, nor for
  text and voices.
"""
ALWAYS_WEAK = """\
- **Other generators.** It knows the fakes it was trained on. Fakes of a generator that was not among them may pass,
  and no figure above tells how many.
- **Other cameras, crops and encodings** than the training data's. A model may lean on how a data set was stored and
  cropped.
- **Groups of people** that are rare in the training data: the figures are means over all images, and errors by
  group were not measured.
- **A person who wants to pass** can change a fake until it does.
"""
WEAK_FALL = 0.02
"""Fall of AUC from which a change of the image is named as a weak spot."""


def render_card(folder: Path) -> str:
    """The text, from a version that has its ``runtime.json``. Raises BrokenArtifact."""
    artifact = artifacts.read(folder)
    frozen = calibration.load(str(folder), artifact.weights_sha256)
    record = runtime_files.read(folder, artifact.weights_sha256)
    reports = list(versions.test_reports(folder).values())
    generated = artifact.data["generated"] or any(report["data"]["generated"] for report in reports)
    parts = [
        f"# {artifact.run}\n",
        *([GENERATED] if generated else []),
        _what(artifact),
        _data(artifact),
        _thresholds(frozen),
        *(_figures(report) for report in reports),
        _weak(reports),
        INTENDED,
        *([_precisions(record)] if record else []),
    ]
    return "\n".join(parts)


def _what(artifact: Artifact) -> str:
    spec, size = artifact.spec, artifact.spec.preprocess.image_size
    return (
        f"Tells photographs of faces from generated ones. `{spec.variant}` ({spec.model.architecture}), images of "
        f"{size} x {size} px, trained {artifact.created[:10]} with seed {spec.seed}; weights sha256 "
        f"`{artifact.weights_sha256}`.\n"
    )


def _data(artifact: Artifact) -> str:
    data = artifact.data
    lines = ["## Data\n", f"{data['name']}, fingerprint `{data['fingerprint'][:12]}`.\n"]
    if data.get("counts"):
        lines += ["| split | real | fake |", "|---|---|---|"]
        lines += [f"| {s} | {data['counts'][s]['real']:,} | {data['counts'][s]['fake']:,} |" for s in SPLITS]
        lines.append("")
    return "\n".join(lines)


def _thresholds(frozen: Calibration) -> str:
    lines = ["## Thresholds\n"]
    if not frozen.chosen_on:
        lines.append("None were chosen: from p_fake 0.5 on an image is called fake, and no verdict is uncertain.\n")
        return "\n".join(lines)
    held = (
        ""
        if frozen.max_fakes_passed is None
        else f", which lets at most {frozen.max_fakes_passed:.0%} of those fakes pass"
    )
    lines.append(
        f"Chosen on the {frozen.chosen_on.get('split', 'valid')} split and frozen: called **real** below p_fake "
        f"{frozen.real_below:.4f}{held}; called **fake** from {frozen.fake_above:.4f} on; **uncertain** between. "
        f"Temperature {frozen.temperature:.3f}.\n"
    )
    return "\n".join(lines)


def _figures(report: dict[str, Any]) -> str:
    counts = report["images"]
    lines = [
        f"## Figures: test split of {report['data']['name']}\n",
        *(f"> {warning}\n" for warning in report.get("warnings", [])),
        f"{counts['real']:,} real and {counts['fake']:,} fake images; 95 % intervals; "
        "one threshold, `fake` from the upper one on.\n",
        "| figure | |",
        "|---|---|",
        *(
            f"| {name} | {format_percent(report['metrics'][key])} |"
            for key, name in (METRICS | SPELT_OUT).items()
            if key in report["metrics"]
        ),
        f"| AUC | {_number(report['ranking']['auc'])} |",
    ]
    if "with_uncertain" in report:
        three = report["with_uncertain"]
        lines += [
            f"| decided (not uncertain) | {format_percent(three['coverage'])} |",
            f"| right where decided | {format_percent(three['accuracy_of_decided'])} |",
            f"| fakes called real, of all fakes, with uncertain | {format_percent(three['fakes_passed_rate'])} |",
            f"| reals called fake, of all reals, with uncertain | {format_percent(three['reals_flagged_rate'])} |",
        ]
    if "robustness" in report:
        lines += ["", "| changed images | AUC | accuracy | fakes passed | reals flagged |", "|---|---|---|---|---|"]
        lines += [
            f"| {row['change']} | {_number(row['auc'])} | {format_percent(row['accuracy'])} | "
            f"{format_percent(row['fakes_passed_rate'])} | {format_percent(row['reals_flagged_rate'])} |"
            for row in report["robustness"]
        ]
    return "\n".join([*lines, ""])


def _weak(reports: list[dict[str, Any]]) -> str:
    lines = ["## Known weak spots\n"]
    for report in reports:
        rows = report.get("robustness")
        if not rows:
            lines.append(
                f"- Changed images of {report['data']['name']} (re-encoded, resized, blurred, cropped) **were not "
                "judged**: `jobs.evaluate --robustness` does."
            )
            continue
        unchanged = rows[0]["auc"]["value"]
        lines += [
            f"- {row['change']}: AUC {row['auc']['value']:.3f} where unchanged images have {unchanged:.3f}."
            for row in rows[1:]
            if unchanged is not None and row["auc"]["value"] is not None and unchanged - row["auc"]["value"] > WEAK_FALL
        ]
    return "\n".join([*lines, ALWAYS_WEAK])


def _precisions(record: RuntimeRecord) -> str:
    measured, on = record.measured, record.compared_on
    where = (
        f"Compared on the {on['split']} split of {on['name']} ({sum(on['images'].values()):,} images)"
        if on
        else "Not compared on images"
    )
    lines = [
        "## Precision\n",
        f"Served in **{record.precision}** (OpenVINO). {where}; images/s of the network alone in batches of "
        f"{measured.get('batch')} on {measured.get('machine')}, {measured.get('threads')} threads. AUC may fall by at "
        f"most {parity_gate.MAX_AUC_DROP} and {parity_gate.MAX_FLIP_RATE:.1%} of the verdicts may flip.\n",
        "| precision | AUC | verdicts flipped | images/s | parity gate |",
        "|---|---|---|---|---|",
    ]
    for row in (PrecisionResult(**values) for values in record.table):
        auc = "-" if row.auc is None else f"{row.auc:.4f}"
        flips = "-" if row.flips is None or row.passed is None else f"{row.flips} of {row.images}"
        speed = "-" if row.images_per_s is None else f"{row.images_per_s:.1f}"
        lines.append(f"| {row.precision} | {auc} | {flips} | {speed} | {parity_gate.describe_result(row)} |")
    return "\n".join([*lines, ""])


def _number(rate: dict[str, Any]) -> str:
    return "undefined" if rate["value"] is None else f"{rate['value']:.4f}"
