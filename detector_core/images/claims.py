"""Parses what a file says about where it comes from: C2PA, IPTC's source type, texts of generators, camera data.

Nothing is fetched: neither manifests that are kept elsewhere nor the state of certificates. Files of strangers are
parsed in a child process (:mod:`detector_core.images.provenance`).
"""

import functools
import io
import json
import re
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from xml.etree import ElementTree

from PIL import Image

from detector_core.errors import BadConfig
from detector_core.images import statements
from detector_core.images.statements import MAX_BYTES

Kind = Literal["c2pa", "iptc", "generator_text", "camera"]
Says = Literal["generated", "partly_generated", "camera", "other"]
Standing = Literal["listed_signer", "signed", "unsigned", "broken"]

MAX_WORDS: Final = 120
"""Maximum length of any text of a claim."""
_SOURCE_TYPES: Final[dict[str, Says]] = {
    "trainedAlgorithmicMedia": "generated",
    "algorithmicMedia": "generated",
    "compositeWithTrainedAlgorithmicMedia": "partly_generated",
    "compositeSynthetic": "partly_generated",
    "digitalCapture": "camera",
    "computationalCapture": "camera",
    "compositeCapture": "camera",
    "negativeFilm": "camera",
    "positiveFilm": "camera",
}
"""What IPTC's codes for the source of an image mean here; others are "other"."""
_SEVERITY: Final[tuple[Says, ...]] = ("generated", "partly_generated", "camera", "other")
_STANDINGS: Final[dict[str, Standing]] = {"Trusted": "listed_signer", "Valid": "signed"}
"""What the states of a validated manifest mean here; others are "broken"."""
_IPTC: Final = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_SOURCE_NAMES: Final = {f"{{{_IPTC}}}{name}" for name in ("DigitalSourceType", "DigitalSourcefileType")}
_RESOURCE: Final = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}resource"
_XMP_KEYWORD: Final = "XML:com.adobe.xmp"
_GENERATORS: Final = (
    ("parameters", r"\bSteps: \d+.*\bSampler: ", "Stable Diffusion"),
    ("workflow", r'^\s*\{.*"nodes"', "ComfyUI"),
    ("prompt", r'^\s*\{.*"class_type"', "ComfyUI"),
    ("invokeai_metadata", r"^\s*\{", "InvokeAI"),
    ("sd-metadata", r"^\s*\{", "InvokeAI"),
    ("Software", r"^NovelAI$", "NovelAI"),
)
"""The name of a text of a PNG, what must be in it, and the program that writes it."""
_KEYWORDS: Final = {_XMP_KEYWORD, *(keyword for keyword, _, _ in _GENERATORS)}
_MAKE, _MODEL, _EXIF, _TAKEN, _COMMENT = 271, 272, 0x8769, 0x9003, 0x9286


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One thing that a file says about where it comes from.

    Attributes:
        kind: where it says so: C2PA manifest, IPTC's digital source type, a generator's text, EXIF of a camera.
        says: what it claims the image to be.
        standing: ``listed_signer``: the signature is valid, and the signer is on the operator's list; ``signed``: it is
            valid, but the signer may be anybody; ``unsigned``: anybody can have written it; ``broken``: the signature
            is not valid, or the file was changed after it was signed, or the claim cannot be read.
        tool: the program or camera that it names.
        signer: the organization in the certificate.
        source_type: IPTC's code for the source of the image, such as ``trainedAlgorithmicMedia``.
        date: when it was signed or taken, as the file says.
        problem: why it is broken.
    """

    kind: Kind
    says: Says = "other"
    standing: Standing = "unsigned"
    tool: str | None = None
    signer: str | None = None
    source_type: str | None = None
    date: str | None = None
    problem: str | None = None


def read_signers(file: str) -> str:
    """The certificates in a file of trusted signers, as PEM. Raises BadConfig if there are none."""
    import c2pa

    try:
        signers = Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"the list of signers {file} cannot be read: {error}") from None
    try:
        if "-----BEGIN CERTIFICATE-----" not in signers:
            raise BadConfig(f"the list of signers {file} has no certificate: give a file of certificates in PEM")
        _context(signers)
    except c2pa.C2paError as error:
        raise BadConfig(f"the list of signers {file} cannot be used: {error}") from None
    return signers


def read_here(data: bytes, signers: str = "") -> list[Claim]:
    """The claims of an image or a clip; of a stranger's file in a child: :mod:`detector_core.images.provenance`."""
    found = statements.find(data)
    texts = [_text(name, content) for name, content in found.texts]
    xmp = found.xmp or next((text.encode() for keyword, text in texts if keyword == _XMP_KEYWORD), b"")
    exif = _exif(found.exif)
    claims = [
        _c2pa(data, found.media_type, signers) if found.media_type else None,
        _iptc(xmp),
        _generator([*texts, ("parameters", exif.get("comment", ""))]),
        _camera(exif),
    ]
    return [claim for claim in claims if claim]


def _c2pa(data: bytes, media_type: str, signers: str) -> Claim:
    """The claim of the C2PA manifest, which speaks for the manifests of its ingredients."""
    import c2pa

    try:
        with c2pa.Reader(media_type, io.BytesIO(data), context=_context(signers)) as reader:
            store = json.loads(reader.json())
    except c2pa.C2paError as error:
        return Claim(kind="c2pa", standing="broken", problem=_words(str(error)))
    manifest = store["manifests"].get(store.get("active_manifest"), {})
    signature = manifest.get("signature_info") or {}
    generators = manifest.get("claim_generator_info") or [{}]
    source = _worst(list(_source_types(store["manifests"])))
    failures = (store.get("validation_results") or {}).get("activeManifest", {}).get("failure", [])
    standing = _STANDINGS.get(store.get("validation_state", ""), "broken")
    return Claim(
        kind="c2pa",
        says=_SOURCE_TYPES.get(source or "", "other"),
        standing=standing,
        tool=_words(generators[0].get("name") or manifest.get("claim_generator")),
        signer=_words(signature.get("issuer") or signature.get("common_name")),
        source_type=_words(source),
        date=_words(signature.get("time")),
        problem=_words(", ".join(failure["code"] for failure in failures)) if standing == "broken" else None,
    )


@functools.lru_cache(maxsize=4)
def _context(signers: str) -> Any:
    import c2pa

    verify = {"verify_trust": True, "ocsp_fetch": False, "remote_manifest_fetch": False}
    return c2pa.Context.from_dict({"verify": verify, "trust": {"trust_anchors": signers} if signers else {}})


def _source_types(value: object) -> Any:
    """Every digital source type in the JSON of a manifest store."""
    if isinstance(value, dict):
        if isinstance(found := value.get("digitalSourceType"), str):
            yield _code(found)
        for inner in value.values():
            yield from _source_types(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _source_types(inner)


def _code(source_type: str) -> str:
    return re.split(r"[/:]", source_type.strip())[-1]


def _worst(codes: list[str]) -> str | None:
    """The code that matters most: generated before partly generated, before a camera."""
    return min(codes, key=lambda code: _SEVERITY.index(_SOURCE_TYPES.get(code, "other")), default=None)


def _iptc(xmp: bytes) -> Claim | None:
    if not xmp:
        return None
    try:
        tree = ElementTree.fromstring(xmp.strip(b"\0 \r\n\t"))
    except (ElementTree.ParseError, ValueError, LookupError):
        return None
    codes = []
    for element in tree.iter():
        codes += [_code(value) for name, value in element.items() if name in _SOURCE_NAMES]
        if element.tag in _SOURCE_NAMES:
            codes += [_code(value) for value in (element.text, element.get(_RESOURCE)) if value and value.strip()]
    code = _worst(codes)
    return Claim(kind="iptc", says=_SOURCE_TYPES.get(code, "other"), source_type=_words(code)) if code else None


def _text(name: bytes, content: bytes) -> tuple[str, str]:
    """The keyword and the text of a chunk of a PNG; empty if it says nothing, or cannot be unpacked."""
    keyword, _, rest = content.partition(b"\0")
    if keyword.decode("latin-1") not in _KEYWORDS:
        return "", ""
    packed = name == b"zTXt"
    if name == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif packed:
        rest = rest[1:]
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, MAX_BYTES)
        except zlib.error:
            rest = b""
    return keyword.decode("latin-1"), rest.decode("utf-8" if name == b"iTXt" else "latin-1", errors="replace")


def _generator(texts: list[tuple[str, str]]) -> Claim | None:
    for keyword, pattern, tool in _GENERATORS:
        if any(name == keyword and re.search(pattern, text, re.DOTALL) for name, text in texts):
            return Claim(kind="generator_text", says="generated", tool=tool)
    return None


def _exif(exif: bytes) -> dict[str, str]:
    """Make, model, date and comment of EXIF data, as far as they can be read."""
    if not exif:
        return {}
    tags = Image.Exif()
    try:
        with warnings.catch_warnings(action="ignore"):
            tags.load(exif)
            inner = tags.get_ifd(_EXIF)
        values = {"make": tags.get(_MAKE), "model": tags.get(_MODEL)}
        comment = inner.get(_COMMENT)
        values |= {"taken": inner.get(_TAKEN), "comment": _comment(comment) if isinstance(comment, bytes) else None}
    except (ValueError, TypeError, SyntaxError, LookupError, OSError, EOFError, RuntimeError):
        return {}
    return {name: value.strip("\0 ") for name, value in values.items() if isinstance(value, str)}


def _comment(content: bytes) -> str:
    """The text of EXIF's UserComment, whose first eight bytes name its encoding."""
    head, text = content[:8], content[8:]
    if head != b"UNICODE\0":
        return text.decode("utf-8", errors="replace")
    return text.decode("utf-16-be" if text[:1] == b"\0" else "utf-16-le", errors="replace")


def _camera(exif: dict[str, str]) -> Claim | None:
    make, model = exif.get("make", ""), exif.get("model", "")
    name = model if model.lower().startswith(make.lower()) else f"{make} {model}"
    if not name.strip():
        return None
    return Claim(kind="camera", says="camera", tool=_words(name), date=_words(exif.get("taken")))


def _words(value: object) -> str | None:
    """A short text without control characters; None if nothing is left of it."""
    text = "".join(character for character in str(value or "")[:MAX_WORDS] if character.isprintable())
    return text.strip() or None


def load_readers() -> None:  # pragma: no cover - as a child process, which cannot write a coverage file
    """Reads EXIF in every encoding once, after which Python opens no further files."""
    _context("")
    for head, encoding in ((b"ASCII\0\0\0", "utf-8"), (b"UNICODE\0", "utf-16-le"), (b"UNICODE\0", "utf-16-be")):
        exif = Image.Exif()
        exif.get_ifd(_EXIF)[_COMMENT] = head + "text".encode(encoding)
        assert _exif(exif.tobytes())["comment"] == "text"
