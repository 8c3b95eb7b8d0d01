"""detector_core.labels: the names, what the network aims at, what Kaggle's CSVs mean."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector_core.labels import FAKE, KAGGLE_NUMBER, LABELS, REAL, SPLITS, TARGET, is_fake, targets


def test_the_names_are_those_on_disk_and_over_http() -> None:
    assert (REAL, FAKE, LABELS) == ("real", "fake", ("real", "fake"))
    assert SPLITS == ("train", "valid", "test")


def test_the_network_s_output_is_of_fake_and_kaggle_writes_1_for_real() -> None:
    assert TARGET == {REAL: 0, FAKE: 1}
    assert KAGGLE_NUMBER == {REAL: 1, FAKE: 0}


@given(st.lists(st.sampled_from(LABELS)))
def test_targets_are_one_for_fake_in_the_order_given(names: list[str]) -> None:
    assert targets(names).tolist() == [float(name == "fake") for name in names]
    assert is_fake(pd.Series(names, dtype=str)).tolist() == [name == "fake" for name in names]
    assert (targets(names).dtype, targets(names).shape) == (np.float32, (len(names),))
    assert is_fake(names).dtype == np.bool_


@pytest.mark.parametrize("convert", [targets, is_fake])
@pytest.mark.parametrize("name", ["Fake", "", "1", "REAL"])
def test_any_other_name_is_refused(convert: Callable[[Iterable[str]], Any], name: str) -> None:
    with pytest.raises(KeyError):
        convert([REAL, name])
