"""The example picture of the web page: painted by our own program, and recognized by the model that comes with it."""

import runpy
from importlib.resources import files
from pathlib import Path

import numpy as np

from detector_core.images.decode import decode
from detector_core.registry import starter
from detector_core.registry.predictor import Predictor
from serve_app.pipeline import find_crops
from serve_app.routes import STATIC
from serve_app.settings import Limits

ROOT = Path(__file__).parents[2]


def test_the_example_is_what_its_script_paints() -> None:
    painted = decode(runpy.run_path(str(ROOT / "docs" / "images" / "example.py"))["example"]())
    shipped = decode((STATIC / "example.jpg").read_bytes())
    assert np.abs(painted.astype(int) - shipped.astype(int)).mean() < 1  # of 255: other versions may round differently


def test_the_starter_model_finds_its_face_and_calls_it_generated() -> None:
    predictor = Predictor(Path(str(files("detector_core") / starter.NAME)))
    image = find_crops(decode((STATIC / "example.jpg").read_bytes()), predictor.info, Limits(), search_faces=True)
    (crop,) = image.crops
    assert crop.face is not None
    (prediction,) = predictor.predict([crop.image_SSC])
    assert prediction.verdict == "fake"
