"""detector_core.images.faces: detecting faces and cropping them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector_core.images import faces as faces_module
from detector_core.images import mtcnn
from detector_core.images.faces import Face, crop, detect, fills_image, search, warm_up


def face(*box: float) -> Face:
    return Face(box=box, score=1.0, landmarks=np.zeros((5, 2), np.float32))


@pytest.fixture(scope="module")
def portrait(faces: Path) -> Image.Image:
    first = sorted((faces / "real_vs_fake/real-vs-fake/valid/real").iterdir())[1]
    return Image.open(first).convert("RGB")


@pytest.mark.parametrize(
    ("box", "margin", "corner", "side"),
    [
        ((40, 30, 60, 50), 0.0, (40, 30), 20),
        ((40, 30, 60, 50), 0.5, (35, 25), 30),
        ((40, 30, 50, 50), 0.0, (35, 30), 20),
        ((-5, -5, 15, 15), 0.0, (0, 0), 20),
        ((98, 58, 126, 86), 0.0, (92, 52), 28),
        ((10, 10, 90, 70), 1.0, (10, 0), 80),
    ],
    ids=["exact", "margin", "squared", "moved in", "moved back", "shrunk"],
)
def test_a_crop_is_a_square_inside_the_image(box, margin, corner, side):
    y, x = np.mgrid[:80, :120]
    image = np.stack([x, y, x], axis=-1).astype(np.uint8)
    cropped = crop(image, face(*box), margin)
    assert cropped.shape == (side, side, 3)
    assert tuple(cropped[0, 0, :2].tolist()) == corner


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (39, 300), (40, 40), (64, 41), (50, 1500), (45, 50_000)])
@pytest.mark.parametrize("content", ["flat", "noise"])
def test_no_face_is_detected_in_flat_or_noisy_images_of_any_size(size, content):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert detect(noise if content == "noise" else np.full_like(noise, 128)) == []


def test_after_warming_up_nothing_more_is_loaded(monkeypatch: pytest.MonkeyPatch):
    mtcnn._weights.cache_clear()
    warm_up()
    monkeypatch.setattr(mtcnn.mtcnn_weights, "load", None)
    assert detect(np.zeros((100, 100, 3), np.uint8)) == []


def test_faces_are_detected_at_their_positions_the_largest_first(portrait: Image.Image):
    canvas = Image.new("RGB", (700, 420), (90, 100, 110))
    canvas.paste(portrait.resize((128, 128)), (20, 250))
    canvas.paste(portrait, (400, 60))
    large, small, *_ = detect(np.asarray(canvas))
    for detected, (left, top, side) in ((large, (400, 60, 256)), (small, (20, 250, 128))):
        assert left < detected.box[0] < detected.box[2] < left + side
        assert top < detected.box[1] < detected.box[3] < top + side
        assert detected.score > 0.95
        x, y = detected.landmarks.T
        assert ((x > detected.box[0]) & (x < detected.box[2]) & (y > detected.box[1]) & (y < detected.box[3])).all()


def test_several_threads_detect_the_same_faces(portrait: Image.Image):
    images = [np.asarray(portrait.resize((side, side))) for side in (128, 160, 192, 224)]
    one_by_one = [[found.box for found in detect(image)] for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = [[found.box for found in faces] for faces in pool.map(detect, images * 3)]
    assert together == one_by_one * 3


@pytest.mark.parametrize(("side", "is_portrait"), [(180, True), (140, True), (100, False)])
def test_a_face_fills_an_aligned_portrait(side, is_portrait):
    image = np.zeros((256, 256, 3), np.uint8)
    assert fills_image(image, face(30, 30, 30 + side, 30 + side)) == is_portrait


def test_boxes_of_a_large_image_are_in_its_own_pixels(portrait: Image.Image):
    plain = detect(np.asarray(portrait.resize((1024, 1024))))[0]
    large = detect(np.asarray(portrait.resize((2048, 2048))))[0]
    assert np.array(large.box) == pytest.approx(2 * np.array(plain.box), abs=25)


@pytest.mark.parametrize(("share", "complete"), [(0.01, True), (0.5, False)])
def test_the_proposals_in_a_crowd_are_bounded(monkeypatch: pytest.MonkeyPatch, share: float, complete: bool):
    proposed, seen = [], []

    def propose(x_NHWC):
        """A share of all places in the pass."""
        height, width = ((length - 2) // 2 - 4 for length in x_NHWC.shape[1:3])
        scores = np.zeros((1, height, width), np.float32)
        scores.reshape(-1)[: int(height * width * share)] = 0.9
        proposed.append(int((scores > 0).sum()))
        return np.zeros((1, height, width, 4), np.float32), scores

    def reject(x_NHWC):
        seen.append(len(x_NHWC))
        return np.zeros((seen[-1], 4)), np.zeros((seen[-1], 10)), np.zeros(seen[-1])

    monkeypatch.setattr(mtcnn, "_first_network", propose)
    monkeypatch.setattr(mtcnn, "_second_network", reject)
    assert search(np.zeros((600, 800, 3), np.uint8)) == ([], complete)
    assert 0 < sum(seen) <= faces_module.MAX_PROPOSALS
    assert max(seen) <= mtcnn.BATCH
    assert (sum(proposed) > faces_module.MAX_PROPOSALS) == (not complete)


@pytest.mark.parametrize(("sharing", "proposals"), [(1, 2000), (6, 2000), (10, 1200), (16, 750), (100, 600)])
def test_images_of_one_request_share_their_proposals(monkeypatch: pytest.MonkeyPatch, sharing: int, proposals: int):
    allowed = []
    found = mtcnn.NOTHING
    monkeypatch.setattr(faces_module, "_find", lambda _, __, max_proposals: allowed.append(max_proposals) or found)
    assert search(np.zeros((60, 60, 3), np.uint8), sharing).complete
    assert allowed == [proposals]


def test_an_image_of_proposals_alone_is_searched_for_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(faces_module, "MAX_PROPOSALS", -1)
    assert search(np.zeros((60, 60, 3), np.uint8)) == ([], False)


def test_of_a_crowd_the_larger_faces_are_found(portrait: Image.Image):
    canvas = Image.new("RGB", (1024, 1024), (90, 100, 110))
    for left in range(0, 1024, 64):
        for top in range(256, 1024, 64):
            canvas.paste(portrait.resize((64, 64)), (left, top))
    canvas.paste(portrait.resize((240, 240)), (300, 8))
    found = search(np.asarray(canvas))
    assert not found.complete
    left, top, right, bottom = found.faces[0].box
    assert 300 < left < right < 540
    assert 8 < top < bottom < 248
    assert search(np.asarray(portrait)).complete
