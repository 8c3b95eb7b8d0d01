"""Hypothesis strategies of scores for the tests of metrics."""

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

few = settings(max_examples=30, deadline=None)  # other tests may occupy the cores


@st.composite
def scored(draw: st.DrawFn) -> tuple[Any, Any]:
    """is_fake_N with both classes, and scores of fake with many ties."""
    n = draw(st.integers(2, 60))
    is_fake = draw(arrays.arrays(np.bool_, n))
    is_fake[:2] = (True, False)
    return is_fake, draw(arrays.arrays(np.int64, n, elements=st.integers(0, 20))) / 20
