"""detector_core.labels: the network's targets."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector_core.labels import LABELS, REAL, is_fake, targets


@given(st.lists(st.sampled_from(LABELS)))
def test_targets_are_one_for_fake_in_the_given_order(names: list[str]) -> None:
    assert targets(names).tolist() == [float(name == "fake") for name in names]
    assert is_fake(pd.Series(names, dtype=str)).tolist() == [name == "fake" for name in names]
    assert (targets(names).dtype, targets(names).shape) == (np.float32, (len(names),))
    assert is_fake(names).dtype == np.bool_


@pytest.mark.parametrize("convert", [targets, is_fake])
@pytest.mark.parametrize("name", ["Fake", "", "1", "REAL"])
def test_any_other_name_is_rejected(convert: Callable[[Iterable[str]], Any], name: str) -> None:
    with pytest.raises(KeyError):
        convert([REAL, name])
