"""Files with statements about their origin: signed by a certificate authority that exists for one test run."""

import functools
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image, PngImagePlugin

from tests.support.images import encode, noise

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
CAPTURED = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
SIGNER = "Test cameras"
STABLE_DIFFUSION = "a portrait\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"


@functools.cache
def _keys() -> tuple[str, str, bytes]:
    """The root as PEM, the signer's chain as PEM, and the signer's key."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _certificate("Test root", root_key, "Test root", root_key, authority=True)
    leaf = _certificate("Test camera", key, "Test root", root_key, authority=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return root, leaf + root, private


def _certificate(name: str, key: Any, issuer: str, issuer_key: Any, *, authority: bool) -> str:
    def of(common: str) -> x509.Name:
        names = ((NameOID.ORGANIZATION_NAME, SIGNER), (NameOID.COMMON_NAME, common))
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in names])

    now = datetime.now(UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    usage |= {"decipher_only": False, "digital_signature": not authority}
    usage |= {"key_cert_sign": authority, "crl_sign": authority}
    builder = (
        x509.CertificateBuilder(of(issuer), of(name), key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def signers() -> str:
    """The list of trusted signers on which :func:`signed` has its signer, as PEM."""
    return _keys()[0]


def signed(data: bytes, media_type: str, source: str = GENERATED, padding: int = 0) -> bytes:
    """A file with a C2PA manifest.

    Args:
        source: the digital source type that it claims.
        padding: bytes of a further assertion, a thumbnail that is none.
    """
    _, chain, key = _keys()
    agent = {"name": "Painter", "version": "1"}
    action = {"action": "c2pa.created", "digitalSourceType": source, "softwareAgent": {"name": "Painter"}}
    assertions = [{"label": "c2pa.actions", "data": {"actions": [action]}}]
    manifest: dict[str, Any] = {"claim_generator_info": [agent], "title": "image", "assertions": assertions}
    if padding:
        manifest["thumbnail"] = {"format": "image/jpeg", "identifier": "padding"}
    info = c2pa.C2paSignerInfo(b"es256", chain.encode(), key, None)
    context = c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})
    out = io.BytesIO()
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(manifest, context) as builder:
        if padding:
            builder.add_resource("padding", io.BytesIO(bytes(padding)))
        builder.sign(signer, media_type, io.BytesIO(data), out)
    return out.getvalue()


def tampered(data: bytes, original: bytes) -> bytes:
    """The signed file with one byte of its pixels changed."""
    pixels = original.index(b"mdat") + 40 if b"mdat" in original else len(original) // 2
    at = data.index(original[pixels : pixels + 16])
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def xmp(source: str = GENERATED) -> bytes:
    """XMP with IPTC's digital source type."""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f' Iptc4xmpExt:DigitalSourceType="{source}"/></rdf:RDF></x:xmpmeta>'
    ).encode()


def camera_exif() -> bytes:
    """EXIF of a phone."""
    exif = Image.Exif()
    exif[271], exif[272] = "Acme", "Acme Phone 7"
    exif.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"
    return exif.tobytes()


def png_with(texts: dict[str, str], image: Image.Image | None = None, *, packed: bool = False) -> bytes:
    """A PNG with texts, as generators write them."""
    info = PngImagePlugin.PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text, zip=packed)
    return encode(image or noise(), "PNG", pnginfo=info)
