"""Encoded images made in memory."""

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

SECRET = b"at home"
"""What the metadata of :func:`personal_image` reveals."""

HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAA"
    "AAAERAAAIAAQAAAAAB7AABAAAAAAAAAGoAAgAAAAACVgABAAAAAAAAAGQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVp"
    "bmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGE"
    "ABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkA"
    "AAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEH"
    "BpeGkAAAAAAwgICAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEAAQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAANZtZGF0AAAA"
    "ZigBrxOA9UU+FJ2bjsn2NzRWhOxSrpAa5DtRqh2be/L88OoQZRqiv8k67H1ryN+S2pcexKmcor3HHyt709oEOfBnYRdCRaGKyqWNcaXYYCH/p1"
    "WyEbJ6vkLvdZ/wb8eUVjhMytfO7gAAAAZFeGlmAABNTQAqAAAACAAEAQ4AAgAAAAgAAAA+AQ8AAgAAAAUAAABGARAAAgAAAA0AAABMARIAAwAA"
    "AAEABgAAAAAAAGF0IGhvbWUAQWNtZQAAQWNtZSBQaG9uZSA3AAA="
)
"""A ramp of colors, 64 x 48 pixels and turned to 48 x 64, with the camera "Acme Phone 7" and SECRET in its EXIF.

Written by libheif with x265, because nothing that is installed here writes HEIC."""


def encode(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file; the options are Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    """The same random pixels on every call; size is (width, height)."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0], channels) if channels > 1 else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def personal_image(format_: str, orientation: int) -> bytes:
    """Noise with SECRET in EXIF, comments and a color profile, as far as the format has them, and after its end."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, SECRET.decode()
    exif.get_ifd(0x8825)[2] = (48.0, 12.0, 30.0)
    options: dict[str, Any] = {"exif": exif.tobytes()}
    if format_ in ("JPEG", "WEBP", "AVIF"):
        options |= {"quality": 80, "icc_profile": SECRET * 10, "xmp": SECRET}
    if format_ in ("JPEG", "GIF"):
        options["comment"] = SECRET
    if format_ == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", SECRET.decode())
        options["pnginfo"] = text
    return encode(noise(), format_, **options) + SECRET


def png_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
