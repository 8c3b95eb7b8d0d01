"""detector_core.evaluation.review_sheet: every tag of a review on one page, also those whose image is gone."""

from pathlib import Path

from detector_core.data import feedback, review
from detector_core.evaluation import review_sheet
from tests.support.images import encode, noise

MODEL = {"name": "tiny", "version": "v1", "sha256": "00"}


def test_the_sheet_shows_each_tag_with_score_verdict_and_decisions(tmp_path: Path) -> None:
    store = feedback.Store(tmp_path, 10**7)
    shown = store.add(encode(noise()), "fake", model=MODEL, verdict="real", p_fake=0.125).id
    missing = store.add(encode(noise(size=(50, 50))), "real", model=MODEL).id
    damaged = store.add(encode(noise(size=(60, 60))), "real", model=MODEL).id
    review.decide(tmp_path, [shown], "accept", reviewer="<anna>", reason="I made it")
    review.decide(tmp_path, [shown], "reject", reviewer="ben")
    records = {tag.record.id: tag.record for tag in review.read(tmp_path)}
    (tmp_path / records[missing].image).unlink()
    (tmp_path / records[damaged].image).write_bytes(b"text")
    page = review_sheet.draw(tmp_path, review.read(tmp_path))
    assert page.count("<figure>") == 3
    assert page.count("data:image/jpeg;base64,") == 1
    for text in (shown, missing, damaged, "tagged fake, predicted real", "p_fake 0.125, disputed", "p_fake unknown"):
        assert text in page
    for text in ("accept by &lt;anna&gt;: I made it", "reject by ben<", "the image was deleted", "predicted nothing"):
        assert text in page
