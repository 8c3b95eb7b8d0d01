"""The bodies that attackers send. Most are small files that ask for far more work than their size justifies."""

import io
import os
from pathlib import Path

from PIL import Image

from tests.support.attacks import flat_image, heavy_clip, repeated_scans, tiff

BOUNDARY = "attack"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def shared_tiles() -> list[bytes]:
    """Two TIFFs of 16,000 x 1 pixels in a thousand tiles of 3 million pixels, which share one stream."""
    return [tiff((16_000, 1), tile=(16, 3_000_000), shared=True)] * 2


def scans_behind_another_format() -> list[bytes]:
    """Two files as phones write them, whose first image repeats its last scan 4,000 times."""
    return [repeated_scans(flat_image("MPO", (4000, 3000)), 4000)] * 2


def crowd() -> list[bytes]:
    """One form with ten images of 256 faces each."""
    folder = Path(os.environ["DETECTOR_FACES"]) / "real_vs_fake/real-vs-fake/test/real"
    faces = [Image.open(path).convert("RGB").resize((64, 64)) for path in sorted(folder.iterdir())[:64]]
    image, buffer = Image.new("RGB", (1024, 1024)), io.BytesIO()
    for number in range(256):
        image.paste(faces[number % len(faces)], (64 * (number % 16), 64 * (number // 16)))
    image.save(buffer, "JPEG", quality=90)
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'.encode()
    return [(head + buffer.getvalue() + b"\r\n") * 10 + f"--{BOUNDARY}--\r\n".encode()]


def long_clips() -> list[bytes]:
    """Two clips of 41 s, in which 10,000 of the largest frames depend on one another."""
    return [heavy_clip(10_000)] * 2


def clips_within_the_limit() -> list[bytes]:
    """Two clips like those, with just few enough pixels to be decoded."""
    return [heavy_clip(640)] * 2
