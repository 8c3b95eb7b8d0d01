"""The model card of a version, ``MODEL_CARD.md``: what it is, how good it is, where it fails, what it is for.

Promotion writes it from the files of the version; nothing in it is entered by hand.
"""

from pathlib import Path
from typing import Any

from detector_core.evaluation import calibration, flag_value
from detector_core.evaluation.baselines import BASELINES
from detector_core.evaluation.calibration import Calibration
from detector_core.evaluation.metrics import METRICS, ROBUSTNESS_METRICS, short_label
from detector_core.evaluation.report_text import (
    SOURCE_HEADER,
    format_estimate,
    format_number,
    format_overlap,
    format_percent,
    source_cells,
)
from detector_core.labels import FAKE, REAL, SPLITS
from detector_core.networks import artifacts
from detector_core.networks.artifacts import Artifact
from detector_core.registry import parity_gate, runtime_files, test_reports
from detector_core.registry.parity_gate import PrecisionResult
from detector_core.registry.runtime_files import RuntimeRecord

CARD_FILE = "MODEL_CARD.md"
GENERATED = """\
> **GENERATED DEMO DATA. This model has never seen a photograph.** It was trained on images drawn by a program, to show
> that the pipeline works. Its metrics say nothing about photographs; do not assess anyone's image with it.
"""
ERROR_RATE_LABELS = {
    "fakes_passed_rate": "**fakes passed** (a fake is called real; the paper's FPR, APCER)",
    "reals_flagged_rate": "**reals flagged** (a real photograph is called fake; the paper's FNR, BPCER)",
}
INTENDED_USE = """\
## Intended use

- To give a person who looks at an image of a face one more indication whether it was photographed or generated. The
  verdict is a probability, not a proof.
- Not for decisions about a person (access, employment, moderation without appeal, evidence in court) that rest on this
  verdict alone.
- Not for images without a face, drawings, retouched photographs, swapped faces, text or voices.
"""
GENERAL_LIMITATIONS = """\
- **Other generators** than those of the training data, such as StyleGAN3 or diffusion models if it has none of theirs.
  Their fakes may pass, and no metric above says how many.
- **Other cameras, crops and encodings** than those of the training data. A model may rely on how a data set was stored
  and cropped.
- **Groups of people** that are rare in the training data: the metrics are means over all images, and errors by group
  were not measured.
- **Deliberate evasion.** A person who wants a fake to pass can change it until it does.
"""
NOTABLE_AUC_DROP = 0.02
"""A change of the images is listed as a known weakness if the ROC AUC drops by more."""


def render_card(folder: Path) -> str:
    """The text of the card, from a version folder with its ``runtime.json``. Raises BrokenArtifact."""
    artifact = artifacts.read(folder)
    model_calibration = calibration.load(str(folder), artifact.weights_sha256)
    record = runtime_files.read(folder, artifact.weights_sha256)
    reports = list(test_reports.read(folder).values())
    generated = artifact.data["generated"] or any(report["data"]["generated"] for report in reports)
    parts = [
        f"# {artifact.run}\n",
        *([GENERATED] if generated else []),
        _model(artifact),
        _data(artifact),
        _thresholds(model_calibration),
        *(_metrics(report) for report in reports),
        _weaknesses(reports),
        INTENDED_USE,
        *([_precisions(record)] if record else []),
    ]
    return "\n".join(parts)


def _model(artifact: Artifact) -> str:
    spec, size = artifact.spec, artifact.spec.preprocess.image_size
    return (
        f"Distinguishes photographs of faces from generated ones. `{spec.variant}` ({spec.model.architecture}), images "
        f"of {size} x {size} px, trained {artifact.created[:10]} with seed {spec.seed}; weights sha256 "
        f"`{artifact.weights_sha256}`.\n"
    )


def _data(artifact: Artifact) -> str:
    data = artifact.data
    left_out = f", without the sources {', '.join(data['left_out'])}" if data.get("left_out") else ""
    lines = ["## Training data\n", f"{data['name']}{left_out}, fingerprint `{data['fingerprint'][:12]}`.\n"]
    if data.get("counts"):
        rows = [(split, data["counts"][split]) for split in SPLITS]
        lines += _table("split | real | fake", [f"{split} | {n[REAL]:,} | {n[FAKE]:,}" for split, n in rows])
    if data.get("terms"):
        lines.append(f"**Terms of the training data, which hold for the model, too:** {data['terms']}\n")
    return "\n".join(lines)


def _thresholds(model_calibration: Calibration) -> str:
    if not model_calibration.chosen_on:
        text = "None were chosen: an image is called fake if p_fake is at least 0.5, and no verdict is uncertain."
        return f"## Thresholds\n\n{text}\n"
    limit = ""
    if model_calibration.max_fakes_passed is not None:
        limit = f" (at most {model_calibration.max_fakes_passed:.0%} of the fakes of that split pass)"
    place = model_calibration.chosen_on
    if "flag_at_most" in place:
        return (
            f"## Thresholds\n\n"
            f"The upper one was chosen on {place['reals']:,} photographs of {place['name']}, to flag at most "
            f"{place['flag_at_most']:.2%} of them: called **real** if p_fake is below "
            f"{model_calibration.real_below:.4f}, **fake** if it is at least {model_calibration.fake_above:.4f}, "
            f"**uncertain** in between. Temperature {model_calibration.temperature:.3f}.\n"
        )
    return (
        f"## Thresholds\n\n"
        f"Chosen on the {model_calibration.chosen_on.get('split', 'valid')} split and then frozen: called **real** if "
        f"p_fake is below {model_calibration.real_below:.4f}{limit}, **fake** if it is at least "
        f"{model_calibration.fake_above:.4f}, **uncertain** in between. "
        f"Temperature {model_calibration.temperature:.3f}.\n"
    )


def _metrics(report: dict[str, Any]) -> str:
    counts = report["images"]
    rows = [
        f"{label} | {format_percent(report['metrics'][name])}"
        for name, label in (METRICS | ERROR_RATE_LABELS).items()
        if name in report["metrics"]
    ]
    rows.append(f"ROC AUC | {format_number(report['ranking']['auc'])}")
    for baseline in report.get("baselines", []):
        what = f"ROC AUC of a logistic regression on {BASELINES[baseline['name']]}, without a network"
        rows.append(f"{what} | {format_number(baseline['auc'])}")
    if "overlap" in report:
        rows.append(f"images that it was trained or chosen on | {format_overlap(report['overlap'])}")
    if "with_uncertain" in report:
        with_uncertain = report["with_uncertain"]
        rows += [
            f"decided, not uncertain (coverage) | {format_percent(with_uncertain['coverage'])}",
            f"correct among those decided | {format_percent(with_uncertain['accuracy_of_decided'])}",
            "fakes called real, of all fakes, if uncertain is allowed | "
            + format_percent(with_uncertain["fakes_passed_rate"]),
            "reals called fake, of all reals, if uncertain is allowed | "
            + format_percent(with_uncertain["reals_flagged_rate"]),
        ]
    lines = [
        f"## Metrics on the test split of {report['data']['name']}\n",
        *(f"> {warning}\n" for warning in report.get("warnings", [])),
        f"{counts[REAL]:,} real and {counts[FAKE]:,} fake images; 95% confidence intervals; an image is called fake "
        f"from the upper threshold on. The positive class is real.\n",
        *_table("metric | value", rows),
    ]
    worth = flag_value.describe(flag_value.of_report(report))
    if worth:
        lines += ["What a flag is worth depends on how many images are fake where the model is used:\n"]
        lines += _table("where | right flags (precision of the verdict fake)", [" | ".join(row) for row in worth])
    if "sources" in report:
        lines += _table(" | ".join(SOURCE_HEADER), [" | ".join(row) for row in source_cells(report["sources"])])
    if "robustness" in report:
        rows = [
            " | ".join([row["change"], *(format_estimate(metric, row[metric]) for metric in ROBUSTNESS_METRICS)])
            for row in report["robustness"]
        ]
        lines += _table(" | ".join(["changed images", *map(short_label, ROBUSTNESS_METRICS)]), rows)
    return "\n".join(lines)


def _weaknesses(reports: list[dict[str, Any]]) -> str:
    lines = ["## Known weaknesses\n"]
    for report in reports:
        rows = report.get("robustness")
        if not rows:
            lines.append(
                f"- **Not evaluated** on changed images of {report['data']['name']}: run `jobs.evaluate --robustness` "
                "before promoting."
            )
            continue
        unchanged, *changed = ((row["change"], row["auc"]["value"]) for row in rows)
        lines += [
            f"- {name}: ROC AUC {auc:.3f}, compared with {unchanged[1]:.3f} on unchanged images."
            for name, auc in changed
            if unchanged[1] is not None and auc is not None and unchanged[1] - auc > NOTABLE_AUC_DROP
        ]
    return "\n".join([*lines, GENERAL_LIMITATIONS])


def _precisions(record: RuntimeRecord) -> str:
    measured, data = record.measured_on, record.compared_on
    comparison = "Not compared on images"
    if data:
        images = sum(data["images"].values())
        comparison = f"Compared on the {data['split']} split of {data['name']} ({images:,} images)"
    lines = [
        "## Precision\n",
        f"Served in **{record.precision}** (OpenVINO). {comparison}; images/s are of the network alone in batches of "
        f"{measured.get('batch_size')} on {measured.get('machine')}, {measured.get('threads')} threads. The ROC AUC "
        f"may drop by at most {parity_gate.MAX_AUC_DROP}, and at most {parity_gate.MAX_FLIP_RATE:.1%} of the verdicts "
        f"may flip.\n",
    ]
    rows = [
        " | ".join([result.precision, *parity_gate.format_cells(result), parity_gate.describe_result(result)])
        for result in (PrecisionResult(**values) for values in record.results)
    ]
    return "\n".join([*lines, *_table("precision | ROC AUC | verdicts flipped | images/s | parity gate", rows)])


def _table(header: str, rows: list[str]) -> list[str]:
    """The lines of a Markdown table, and an empty one after it."""
    separator = "|".join("---" for _ in header.split("|"))
    return [f"| {header} |", f"|{separator}|", *(f"| {row} |" for row in rows), ""]
