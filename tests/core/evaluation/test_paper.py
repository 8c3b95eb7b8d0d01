"""The paper's metrics: Table V follows from Tables III and IV, except for the listed misprints."""

from decimal import Decimal

import pytest
from scipy.stats import chi2_contingency

from detector_core.evaluation.comparison import PAPER, paper_confusion
from detector_core.networks.variants import VARIANTS, spec_for

MISPRINTS = {
    ("resnet68", "accuracy"): "91.92%",
    ("inception_resnet_v2-cutout", "f1"): "99.04%",
    ("inception_resnet_v2-cutout", "precision"): "98.17%",
    ("inception_resnet_v2-cutout", "specificity"): "98.20%",
    ("inception_resnet_v2", "fakes_passed_rate"): "0.0133%",
    ("vggface2", "fakes_passed_rate"): "0.0049%",
    ("resnet68", "fakes_passed_rate"): "0.0072%",
    ("inception_resnet_v2-cutout", "fakes_passed_rate"): "0.018%",
    ("vggface2-cutout", "fakes_passed_rate"): "0.017%",
    ("resnet68-cutout", "fakes_passed_rate"): "0.0043%",
}


def agrees(printed: str, value: float) -> bool:
    """Whether a printed percentage is the value, to within half a unit of its last digit."""
    number = Decimal(printed.removesuffix("%"))
    half = Decimal(1).scaleb(int(number.as_tuple().exponent)) / 2
    return abs(number - Decimal(repr(round(100 * value, 9)))) <= half


def test_every_table_has_the_six_variants() -> None:
    for table in ("table_2", "confusions", "table_5"):
        assert set(PAPER[table]) == set(VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_matrices_count_every_test_image(variant: str) -> None:
    assert (paper_confusion(variant).reals, paper_confusion(variant).fakes) == (10_000, 10_000)
    assert PAPER["confusions"][variant]["table"] == ("IV" if variant.endswith("-cutout") else "III")


@pytest.mark.parametrize("variant", VARIANTS)
def test_table_5_is_recomputed_from_the_matrices(variant: str) -> None:
    metrics = paper_confusion(variant).metrics()
    recomputed = PAPER["table_5"][variant]["recomputed"]
    assert recomputed == {name: round(metrics[name].value, 6) for name in recomputed}
    assert list(recomputed) == list(PAPER["table_5"][variant]["printed"])


def test_metrics_computed_by_hand() -> None:
    ours = paper_confusion("resnet68-cutout")
    assert ours.accuracy.value == pytest.approx(0.97045)
    assert ours.f1.value == pytest.approx(0.96968, abs=5e-6)
    assert ours.precision.value == pytest.approx(0.99547, abs=5e-6)
    assert ours.specificity.value == pytest.approx(0.9957)
    assert ours.sensitivity.value == pytest.approx(0.9452)
    assert ours.fakes_passed_rate.value == pytest.approx(0.0043)


def test_the_listed_misprints_are_all_there_are() -> None:
    misprints = {
        (variant, metric): row["printed"][metric]
        for variant, row in PAPER["table_5"].items()
        for metric in row["printed"]
        if not agrees(row["printed"][metric], paper_confusion(variant).metrics()[metric].value)  # type: ignore[arg-type]
    }
    assert misprints == MISPRINTS
    assert {(row["variant"], row["metric"]): row["printed"] for row in PAPER["misprints"]} == MISPRINTS


def test_every_false_positive_rate_is_a_fraction_with_a_percent_sign() -> None:
    for variant in VARIANTS:
        printed = PAPER["table_5"][variant]["printed"]["fakes_passed_rate"].removesuffix("%")
        digits = len(printed.partition(".")[2])
        value = paper_confusion(variant).fakes_passed_rate.value
        assert value is not None
        assert float(printed) == pytest.approx(value, abs=0.51 * 10**-digits)


def test_precision_and_specificity_are_swapped() -> None:
    printed = PAPER["table_5"]["inception_resnet_v2-cutout"]["printed"]
    metrics = paper_confusion("inception_resnet_v2-cutout").metrics()
    assert agrees(printed["precision"], metrics["specificity"].value)  # type: ignore[arg-type]
    assert agrees(printed["specificity"], metrics["precision"].value)  # type: ignore[arg-type]


def test_the_drop_of_51_percent_in_the_text_is_48_6() -> None:
    before, after = paper_confusion("vggface2").reals_flagged, paper_confusion("vggface2-cutout").reals_flagged
    assert (before, after) == (659, 339)
    assert 1 - after / before == pytest.approx(0.486, abs=5e-4)


def test_the_two_best_are_within_noise() -> None:
    (row,) = PAPER["within_noise"]
    counts = [
        [paper_confusion(variant).fakes_passed, paper_confusion(variant).fakes_caught] for variant in row["variants"]
    ]
    assert chi2_contingency(counts, correction=False).pvalue == pytest.approx(row["p_value"], abs=5e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_train_with_the_settings_of_table_2(variant: str) -> None:
    optim = spec_for(variant).optim
    assert {"learning_rate": optim.learning_rate, "epochs": optim.epochs} == PAPER["table_2"][variant]
