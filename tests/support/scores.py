"""Scores for the tests of metrics: Hypothesis strategies, and tables as an evaluation writes them."""

from typing import Any

import numpy as np
import pandas as pd
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


def scores_of(real: list[float], fake: list[float]) -> pd.DataFrame:
    """A table of scores from the logits of reals and fakes."""
    logit = np.array(real + fake, dtype=np.float32)
    label = ["real"] * len(real) + ["fake"] * len(fake)
    return pd.DataFrame({"path": [f"{i}.jpg" for i in range(len(label))], "label": label, "logit": logit})


def of_sources(**sources: tuple[list[float], list[float]]) -> pd.DataFrame:
    """A table of scores from the logits of reals and fakes, by source."""
    tables = [scores_of(*scores).assign(source=name) for name, scores in sources.items()]
    return pd.concat(tables, ignore_index=True).assign(path=lambda table: table["source"] + "/" + table["path"])
