"""docs/scaling.md says what the model computes."""

import re
from pathlib import Path

import pytest

from benchmarks.scaling import Inputs, exchange_s, serving, step

DOC = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
INPUTS = Inputs()


def rows(part: str) -> list[tuple[int, float, float]]:
    """(GPUs, images/s, fraction of ideal) of the tables in a part of the page."""
    found = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| (\d+)% \|", part, flags=re.MULTILINE)
    return [(int(n.replace(",", "")), float(rate.replace(",", "")), int(share) / 100) for n, rate, share in found]


def test_the_tables_of_training_are_the_model_s() -> None:
    fixed, growing = DOC.split("With 200 images per GPU")
    assert len(rows(fixed)) == 6
    assert len(rows(growing)) == 4
    for table, batch_of in ((fixed, lambda _: INPUTS.batch), (growing, lambda n: n * INPUTS.batch_per_gpu)):
        for gpus, images_per_s, share in rows(table):
            computed = step(INPUTS, gpus, batch_of(gpus))
            assert computed.images_per_s == pytest.approx(images_per_s, abs=1)
            assert computed.efficiency == pytest.approx(share, abs=0.006)


def test_the_table_of_serving_is_the_model_s() -> None:
    found = re.findall(r"^\| ([\d,]+) \| ([\d.]+) \| (\d+) \| [\d.]+ \| ([\d.]+) \|", DOC, flags=re.MULTILINE)
    assert len(found) == 4
    for per_hour, per_s, nodes, dollars in found:
        computed = serving(INPUTS, int(per_hour.replace(",", "")))
        assert computed == pytest.approx((float(per_s), int(nodes), float(dollars)), abs=0.06)


def test_one_gpu_exchanges_nothing_and_a_batch_of_twenty_micro_batches_feeds_twenty() -> None:
    assert exchange_s(INPUTS, 1) == 0
    best = max(range(1, 65), key=lambda n: step(INPUTS, n, INPUTS.batch).images_per_s)
    assert best == INPUTS.batch / INPUTS.micro_batch
