"""The deployments without Ray Serve around them, in processes of their own: ray.serve cannot be imported where warnings
are errors."""

import subprocess
import sys
from pathlib import Path

from tests.support.models import save_model

HEALTH = """
import asyncio, sys
import numpy as np
from ray.serve import batching
from serve_app.deployments import Detector
from serve_app.settings import Settings

batching._BatchQueue._warn_if_max_batch_size_exceeds_max_ongoing_requests = lambda _: None  # asks the replica

async def story():
    detector = Detector.func_or_class(Settings(model=sys.argv[1]))
    await detector.check_health()
    image = np.zeros((32, 32, 3), np.uint8)
    await detector.predict(image)
    engine, detector._following.current._engine = detector._following.current._engine, lambda _: 1 / 0
    try:
        await detector.predict(image)
    except ZeroDivisionError:
        print("failed")
    try:
        await detector.check_health()
    except ZeroDivisionError:
        print("ill")
    detector._following.current._engine = engine
    await detector.check_health()
    print("well")

asyncio.run(story())
"""


def test_ray_serve_hears_of_a_broken_engine(tmp_path: Path) -> None:
    assert told(HEALTH, save_model(tmp_path / "tiny")) == ["failed", "ill", "well"]


FULL = """
import asyncio, sys
from serve_app.errors import Busy
from serve_app.deployments import BoundedModelClient
from serve_app.settings import Settings

class Handle:
    def __init__(self):
        self.asked, self.answers = [], asyncio.Event()
        self.predict = self.model_info = self
    async def remote(self, *image):
        self.asked.append("image" if image else "name")
        await self.answers.wait()
        return "answer"

async def story():
    handle, waiting = Handle(), []
    asked = BoundedModelClient(handle, Settings(model=sys.argv[1], max_queued=50), waiting.append)
    names = [asyncio.create_task(asked.model_info()) for _ in range(3)]
    images = [asyncio.create_task(asked.predict(None)) for _ in range(50)]
    await asyncio.sleep(0.1)
    try:
        await asked.predict(None)
    except Busy:
        print("busy")
    handle.answers.set()
    print(len(await asyncio.gather(*names, *images)), handle.asked.count("name"), handle.asked.count("image"))
    print(max(waiting), waiting[-1])

asyncio.run(story())
"""


def test_the_question_which_model_answers_takes_no_images_place(tmp_path: Path) -> None:
    assert told(FULL, save_model(tmp_path / "tiny")) == ["busy", "53", "1", "50", "50", "0"]


def told(script: str, model: Path) -> list[str]:
    """The words that a script prints about a model."""
    found = subprocess.run([sys.executable, "-c", script, str(model)], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    return found.stdout.split()
