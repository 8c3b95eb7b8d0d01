"""detector_core.images.mtcnn: what facenet-pytorch finds, without PyTorch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN
from facenet_pytorch.models.utils.detect_face import detect_face
from PIL import Image

from detector_core.errors import WeightsUnavailable
from detector_core.images import mtcnn_weights
from detector_core.images.mtcnn import TooManyProposals, detect

EXAMPLE = Path(__file__).parents[3] / "serve_app" / "static" / "example.jpg"
SMALLEST = 40.0


@pytest.fixture(scope="module")
def original() -> MTCNN:
    return MTCNN().eval()


@pytest.fixture(scope="module")
def face() -> Image.Image:
    return Image.open(EXAMPLE).convert("RGB")


def canvas(face: Image.Image, size: tuple[int, int], *faces: tuple[int, int, int]) -> np.ndarray:
    """Faces (left, top, side) on noise."""
    noise = np.random.default_rng(0).integers(60, 120, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    for left, top, side in faces:
        image.paste(face.resize((side, side)), (left, top))
    return np.asarray(image)


@pytest.mark.parametrize(
    ("size", "faces"),
    [
        ((256, 256), [(0, 0, 256)]),
        ((211, 307), [(-20, 90, 170)]),
        ((700, 420), [(20, 250, 128), (400, 60, 256), (250, 10, 90)]),
        ((640, 560), [(80 * x, 80 * y, 80) for x in range(8) for y in range(7)]),
        ((300, 200), []),
    ],
    ids=["portrait", "cut off", "three", "crowd", "none"],
)
def test_it_finds_what_facenet_pytorch_finds(
    original: MTCNN, face: Image.Image, size: tuple[int, int], faces: list[tuple[int, int, int]]
) -> None:
    image = canvas(face, size, *faces)
    networks = original.pnet, original.rnet, original.onet
    with torch.no_grad():
        (boxes,), (landmarks,) = detect_face(
            image, SMALLEST, *networks, original.thresholds, original.factor, original.device
        )
    found = detect(image, SMALLEST, 100_000)
    assert len(found.boxes) == len(boxes)
    assert (len(boxes) > 0) == (len(faces) > 0)
    if len(boxes):  # equal scores in a crowd have no order
        ours, theirs = by_position(found.boxes), by_position(boxes.astype(float))
        assert found.boxes[ours] == pytest.approx(boxes[theirs].astype(float), abs=1e-2)
        assert found.landmarks[ours] == pytest.approx(landmarks[theirs].astype(float), abs=1e-2)


def by_position(boxes: np.ndarray) -> np.ndarray:
    return np.lexsort(boxes[:, :2].round().T)


def test_the_weights_are_those_of_facenet_pytorch(original: MTCNN) -> None:
    """Convolutions as HWIO, dense layers as IO."""
    expected = {}
    for name in ("pnet", "rnet", "onet"):
        for key, tensor in getattr(original, name).state_dict().items():
            values = tensor.numpy()
            expected[f"{name}.{key}"] = values.transpose(2, 3, 1, 0) if values.ndim == 4 else values.T
    read = mtcnn_weights.load()
    assert read.keys() == expected.keys()
    assert all(np.array_equal(read[key], expected[key]) for key in expected)


def test_more_proposals_than_allowed_end_the_search(face: Image.Image) -> None:
    with pytest.raises(TooManyProposals):
        detect(np.asarray(face), SMALLEST, 3)


@pytest.mark.parametrize("package", ["no_such_package", "numpy"])
def test_another_release_is_refused(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtcnn_weights, "PACKAGE", package)
    with pytest.raises(WeightsUnavailable, match=r"pnet\.pt is not that of facenet-pytorch 2\.6\.0"):
        mtcnn_weights.load()
