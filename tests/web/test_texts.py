"""The page has words for every warning that the service gives."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from detector_core.images.claims import Kind, Says, Standing
from serve_app.routes import STATIC
from serve_app.schemas import ImageWarning, Quality

OF_CLIPS = {"not_as_shown", "damaged_frames"}
OF_FILES = {"metadata_dropped", "animated", "recompressed"}
MARKED_ON_THE_CARD = {"demo_model"}


@pytest.mark.parametrize(
    ("about", "never"), [("note", OF_CLIPS), ("clip.note", OF_FILES)], ids=["of pictures", "of clips"]
)
def test_every_warning_has_words(about: str, never: set[str]) -> None:
    texts = "".join(Path(STATIC, name).read_text() for name in ("texts.js", "texts_more.js"))
    words = set(re.findall(rf'^  "{re.escape(about)}\.(\w+)": \[', texts, re.MULTILINE))
    codes = {*get_args(ImageWarning), *(get_args(Quality) if about == "note" else ())}
    assert codes - never - MARKED_ON_THE_CARD - words == set()


@pytest.mark.parametrize(("about", "values"), [("kind", Kind), ("says", Says), ("standing", Standing)])
def test_every_claim_of_origin_has_words(about: str, values: Any) -> None:
    words = re.findall(rf'^  "origin\.{about}\.(\w+)": \[', Path(STATIC, "texts_origin.js").read_text(), re.MULTILINE)
    assert set(get_args(values)) <= set(words)
