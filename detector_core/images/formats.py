"""The format of an image file, from its first bytes. File names and content types are ignored."""

import importlib.util
import re
from typing import Final

HEAD_BYTES: Final = 16
"""How many bytes tell the format."""
BUILT_IN: Final = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF", "GIF")
"""Formats that Pillow decodes by itself, with its names."""
READABLE: Final = (*BUILT_IN, *(["HEIC"] if importlib.util.find_spec("pi_heif") else []))
"""Formats that are decoded: HEIC only where the optional package pi-heif is installed."""
_SIGNATURES: Final = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF....WEBP",
    "AVIF": rb"....ftypavi[fs]",
    "BMP": rb"BM....\0\0\0\0",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "GIF": rb"GIF8[79]a",
    "HEIC": rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "Photoshop": rb"8BPS\0",
}
_PATTERNS: Final = {name: re.compile(signature, re.DOTALL) for name, signature in _SIGNATURES.items()}


def identify(head: bytes) -> str | None:
    """The format of an image file that begins with ``head``; None if it is not an image.

    An AVIF image that names a more general format first is called HEIC, and an image may be damaged behind its head.
    """
    return next((name for name, pattern in _PATTERNS.items() if pattern.match(head)), None)
