"""Backup, restore and removal as docs/operate.md says: its blocks are run on folders, and a loss is undone by them."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from detector_core.data import review
from detector_core.registry import versions
from detector_core.registry.predictor import Predictor
from tests.support.http_service import image_bytes, make_app
from tests.support.models import save_model

PAGE = Path(__file__).parents[2] / "docs" / "operate.md"
PNG = {"Content-Type": "image/png"}
ANSWER = ("verdict", "p_fake", "confidence", "model")
pytestmark = pytest.mark.skipif(shutil.which("rclone") is None, reason="rclone is not installed (Debian: rclone)")


def block(heading: str) -> str:
    """The first block of commands after a heading of the page."""
    after = PAGE.read_text().partition(heading)[2]
    return re.findall(r"^```sh\n(.*?)^```$", after, flags=re.MULTILINE | re.DOTALL)[0]


class Place:
    """A machine and a store: every path of the page lies below ``root``, where buckets are folders."""

    def __init__(self, root: Path) -> None:
        self.root, self.bucket = root, root / "store" / "BUCKET"
        self.feedback, self.settings = root / "srv" / "feedback", root / "etc" / "detector"
        programs = root / "programs"
        programs.mkdir()
        (programs / "chown").symlink_to("/bin/true")  # there is no user named detector
        (programs / "aws").write_text(f'#!/bin/sh\nshift 2; rm -r "{root}/store/${{1#s3://}}"\n')
        (programs / "aws").chmod(0o700)
        self._variables = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(root)}

    def run(self, commands: str) -> int:
        """Runs commands of the page; the exit code."""
        commands = re.sub(r"RCLONE_CONFIG_STORE_\w+=[\w-]+", "", commands).replace("store:", f"{self.root}/store/")
        for name in ("/srv/", "/etc/"):
            commands = commands.replace(f" {name}", f" {self.root}{name}")
        done = subprocess.run(["bash", "-euc", commands], env=self._variables, capture_output=True)
        return done.returncode

    def service(self) -> TestClient:
        """The service on what is there."""
        predictor = Predictor(versions.live(self.bucket / "models"), threads=1)
        return TestClient(make_app(predictor, feedback_folder=str(self.feedback)))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    versions.promote(save_model(tmp_path / "model"), place.bucket / "models")
    place.settings.mkdir(parents=True)
    (place.settings / "keys").write_text("a key")
    return place


def ask(client: TestClient, query: str = "") -> dict[str, Any]:
    response = client.post(f"/v1/detect{query}", content=image_bytes(format_="PNG"), headers=PNG)
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()["results"][0]
    return result


def test_what_was_lost_is_restored_and_works(place: Place) -> None:
    client = place.service()
    before, given = ask(client), ask(client, "?tag=fake&consent=true")["tag"]["id"]
    review.decide(place.feedback, [given], "accept", reviewer="anna")
    assert place.run(block("**Back up.**")) == 0

    for lost in (place.bucket, place.feedback, place.settings):
        shutil.rmtree(lost)
    assert place.run(block("**Restore.**")) == 0

    client = place.service()
    assert {key: ask(client)[key] for key in ANSWER} == {key: before[key] for key in ANSWER}
    (tag,) = review.read(place.feedback)
    assert (tag.record.id, tag.state) == (given, review.ACCEPTED)
    form = {"label": "fake", "consent": "true", "receipt": before["receipt"]}
    files = {"file": ("a.png", image_bytes(format_="PNG"), "image/png")}
    assert client.post("/v1/feedback", data=form, files=files).status_code == 200
    assert (place.settings / "keys").read_text() == "a key"
    for path in (place.settings / "keys", place.feedback / "receipt-key"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077


def test_a_deleted_tag_leaves_the_backup_with_the_next_one(place: Place) -> None:
    given = ask(place.service(), "?tag=real&consent=true")["tag"]["id"]
    assert place.run(block("**Back up.**")) == 0
    copies = place.root / "store" / "BACKUP" / "feedback"
    (tag,) = review.read(place.feedback)
    assert (copies / tag.record.image).exists()
    review.delete(place.feedback, [given], reviewer="anna")
    assert place.run(block("**Back up.**")) == 0
    assert not (copies / tag.record.image).exists()


def test_a_bucket_is_removed_only_if_its_backup_has_every_byte(place: Place) -> None:
    place.feedback.mkdir(parents=True)
    assert place.run(block("**Back up.**")) == 0
    (weights,) = (place.root / "store" / "BACKUP").rglob("model.safetensors")
    data = weights.read_bytes()
    removal = block("The bucket goes last")
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert place.run(removal) != 0
    assert place.bucket.exists()
    weights.write_bytes(data)
    assert place.run(removal) == 0
    assert not place.bucket.exists()
