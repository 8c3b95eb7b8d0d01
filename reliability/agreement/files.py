"""The files of the agreement run: every kind that people send."""

import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from detector_core.data import demo
from tests.support import provenance
from tests.support.images import HEIC, encode, noise

KINDS: dict[str, float] = {
    "portraits": 0.35,
    "groups": 0.15,
    "photos": 0.15,
    "no face": 0.1,
    "signed": 0.08,
    "clips": 0.07,
    "damaged": 0.1,
}
"""Each kind, and its part of all files."""
SIDE = 256
SAVED = (("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"quality": 90}), ("JPEG", {"quality": 40}), ("AVIF", {}))
SAVED_RARELY = (("GIF", {}), ("BMP", {}), ("TIFF", {}))


def make_files(folder: Path, count: int, portraits: Path | None) -> None:
    """Writes ``count`` files into a subfolder for each kind.

    Args:
        portraits: a folder of aligned portraits; None paints them.
    """
    faces = _portraits(portraits)
    makers: dict[str, Callable[[int, Iterator[Image.Image]], tuple[str, bytes]]] = {
        **{"portraits": _portrait, "groups": _group, "photos": _photo, "no face": _no_face},
        **{"signed": _signed, "clips": _clip, "damaged": _damaged},
    }
    left = count
    for kind, part in KINDS.items():
        number = left if kind == list(KINDS)[-1] else min(left, max(1, round(part * count)))
        left -= number
        (folder / kind).mkdir(parents=True)
        for index in range(number):
            suffix, data = makers[kind](index, faces)
            (folder / kind / f"{index:03}.{suffix}").write_bytes(data)


def one_more(file: Path, portraits: Path | None) -> None:
    """Writes a portrait that is in no other file."""
    face = next(_portraits(portraits)).rotate(2)
    file.write_bytes(encode(face))


def _portraits(folder: Path | None) -> Iterator[Image.Image]:
    """Portraits without end."""
    if folder:
        files = itertools.cycle(sorted(path for path in folder.rglob("*.jpg")))
        yield from (Image.open(path).convert("RGB").resize((SIDE, SIDE)) for path in files)
    for seed in itertools.count():
        yield Image.open(io.BytesIO(demo.real_image(np.random.default_rng(seed), SIDE))).convert("RGB")


def _portrait(index: int, faces: Iterator[Image.Image]) -> tuple[str, bytes]:
    saved = SAVED_RARELY if index % 8 == 7 else SAVED
    format_, options = saved[index % len(saved)]
    return format_.lower(), encode(next(faces), format_, **options)


def _scene(faces: Iterator[Image.Image], count: int, side: int, seed: int) -> Image.Image:
    """Faces in a row on a larger background."""
    background = np.random.default_rng(seed).integers(
        90, 120, (side + 120, count * (side + 30) + 90, 3), dtype=np.uint8
    )
    scene = Image.fromarray(background)
    for number in range(count):
        scene.paste(next(faces).resize((side, side)), (45 + number * (side + 30), 60))
    return scene


def _group(index: int, faces: Iterator[Image.Image]) -> tuple[str, bytes]:
    return "jpg", encode(_scene(faces, 2 + index % 6, 150, index), "JPEG", quality=90)


def _photo(index: int, faces: Iterator[Image.Image]) -> tuple[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 1 + index % 8
    scene = _scene(faces, 1, (90, 180, 260)[index % 3], index)
    return "jpg", encode(scene, "JPEG", quality=92, exif=exif.tobytes())


def _no_face(index: int, faces: Iterator[Image.Image]) -> tuple[str, bytes]:  # noqa: ARG001 -- as the others
    if index % 4 == 0:
        return "png", encode(Image.new("RGB", (200, 100), (index, 90, 40)))
    if index % 4 == 1:
        return "heic", HEIC + bytes(index)
    return "png", encode(noise(size=(120 + index, 90)))


def _signed(index: int, faces: Iterator[Image.Image]) -> tuple[str, bytes]:
    face = next(faces)
    if index % 4 == 3:
        return "png", provenance.png_with({"parameters": provenance.STABLE_DIFFUSION}, face)
    if index % 4 == 2:
        return "jpg", encode(face, "JPEG", xmp=provenance.xmp(), exif=provenance.camera_exif())
    plain = encode(face, "JPEG", quality=90)
    data = provenance.signed(plain, "image/jpeg", (provenance.GENERATED, provenance.CAPTURED)[index % 2])
    return "jpg", data if index % 3 else provenance.tampered(data, plain)


def _clip(index: int, faces: Iterator[Image.Image]) -> tuple[str, bytes]:
    """A second or two in which one portrait follows another, or a group is shown."""
    buffer = io.BytesIO()
    container, codec, suffix = (("mp4", "libx264", "mp4"), ("webm", "libvpx", "webm"))[index % 2]
    frames = [_scene(faces, 2, 110, index) if index % 3 == 0 else next(faces) for _ in range(2)]
    with av.open(buffer, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=10)
        stream.width, stream.height = (side - side % 2 for side in frames[0].size)
        stream.pix_fmt = "yuv420p"
        for number in range(12 + index):
            shown = frames[number // 8 % 2].crop((0, 0, stream.width, stream.height))
            output.mux(stream.encode(av.VideoFrame.from_image(shown)))
        output.mux(stream.encode())
    return suffix, buffer.getvalue()


def _damaged(index: int, faces: Iterator[Image.Image]) -> tuple[str, bytes]:
    whole = encode(next(faces), *(("JPEG",), ("PNG",))[index % 2])
    cut = whole[: len(whole) * (1 + index % 5) // 8]
    others = (b"", b"no image at all", _clip(0, faces)[1][: 900 + index], b"\0\0\0\x0cJXL \r\n\x87\n")
    return ("dat", others[index // 3 % 4]) if index % 3 == 0 else ("jpg", cut)
