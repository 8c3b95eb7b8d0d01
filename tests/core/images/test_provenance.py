"""detector_core.images.provenance: what files say about themselves, and what they cannot make the reader do."""

import os
import signal
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import c2pa
import pytest
from PIL import Image

from detector_core.errors import BadConfig
from detector_core.images import child, provenance, statements
from detector_core.images.budget import CpuBudget
from detector_core.images.child import Cancellation, Cancelled
from detector_core.images.claims import Claim, read_here, read_signers
from detector_core.images.provenance import read
from tests.support import attacks
from tests.support import provenance as files
from tests.support.clips import make_clip
from tests.support.images import encode, noise, png_chunk

MEDIA = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "AVIF": "image/avif", "MP4": "video/mp4"}


@pytest.fixture(scope="module", autouse=True)
def no_child_is_left() -> Iterator[None]:
    yield
    provenance.CHILDREN.stop_idle()


def plain(format_: str) -> bytes:
    return make_clip(3) if format_ == "MP4" else encode(noise(size=(64, 48)), format_)


@pytest.mark.parametrize("format_", MEDIA)
def test_a_signature_is_checked_against_the_pixels_and_the_list_of_signers(format_: str) -> None:
    data = files.signed(plain(format_), MEDIA[format_])
    listed = Claim(
        kind="c2pa",
        says="generated",
        standing="listed_signer",
        tool="Painter",
        signer=files.SIGNER,
        source_type="trainedAlgorithmicMedia",
    )
    assert read_here(data, files.signers()) == [listed]
    (claim,) = read_here(data)
    assert (claim.standing, claim.problem) == ("signed", None)
    (claim,) = read_here(files.tampered(data, plain(format_)), files.signers())
    assert claim.standing == "broken"
    assert "mismatch" in str(claim.problem)
    assert read_here(plain(format_), files.signers()) == []


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a manifest that is kept elsewhere nor the state of a certificate; the signature is checked."""
    original, used = c2pa.Context.from_dict, []

    def recording(settings: dict[str, Any]) -> Any:
        used.append(settings["verify"])
        return original(settings)

    data, own_list = files.signed(plain("JPEG"), "image/jpeg"), files.signers() + "\n"  # equal to no earlier list
    monkeypatch.setattr(c2pa.Context, "from_dict", recording)
    assert [claim.standing for claim in read_here(data, own_list)] == ["listed_signer"]
    assert used == [{"verify_trust": True, "ocsp_fetch": False, "remote_manifest_fetch": False}]


def test_a_child_reads_the_same_and_is_used_again() -> None:
    data = files.signed(plain("JPEG"), "image/jpeg", files.CAPTURED)
    provenance.CHILDREN.warm_up()
    pids = [idle.pid for idle in provenance.CHILDREN.idle]
    assert read(data, signers=files.signers()) == tuple(read_here(data, files.signers()))
    assert read(data)[0].says == "camera"
    assert read(plain("JPEG")) == ()
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + files.STABLE_DIFFUSION.encode("utf-16-be")
    for unsigned in (
        encode(noise(), "WEBP", xmp=files.xmp(), exif=files.camera_exif()),
        encode(noise(), "JPEG", exif=exif.tobytes()),
        files.png_with({"workflow": '{"nodes": []}'}, packed=True),
    ):
        assert read(unsigned) == tuple(read_here(unsigned)) != ()
    assert [idle.pid for idle in provenance.CHILDREN.idle] == pids


def test_only_the_places_that_the_format_has_for_it_count() -> None:
    data = files.signed(plain("JPEG"), "image/jpeg")
    manifest = data[: len(data) - len(plain("JPEG"))]
    for appended in (manifest, b"\0\0\0\0jumbc2pa", b"trainedAlgorithmicMedia", files.xmp(), b"Steps: 1, Sampler: x"):
        for format_ in MEDIA:
            assert not statements.find(plain(format_) + appended), format_
    # in another part of the file than the one that belongs to it
    assert read_here(encode(noise(), "JPEG", comment=files.xmp())) == []
    assert read_here(files.png_with({"Comment": files.STABLE_DIFFUSION})) == []


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_iptc_and_camera(format_: str) -> None:
    options = {"xmp": files.xmp(), "exif": files.camera_exif()}
    data = encode(noise(), format_, **options)
    if format_ == "PNG":  # Pillow writes no XMP
        text = b"XML:com.adobe.xmp\0\0\0\0\0" + files.xmp()
        data = data[:33] + png_chunk(b"iTXt", text) + data[33:]
    iptc = Claim(kind="iptc", says="generated", source_type="trainedAlgorithmicMedia")
    camera = Claim(kind="camera", says="camera", tool="Acme Phone 7", date="2026:01:02 03:04:05")
    assert read_here(data) == [iptc, camera]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("compositeWithTrainedAlgorithmicMedia", "partly_generated"),
        ("http://cv.iptc.org/newscodes/digitalsourcetype/negativeFilm", "camera"),
        ("digitalsourcetype:digitalArt", "other"),
    ],
)
def test_a_source_type_as_an_element(source: str, says: str) -> None:
    written = files.xmp().replace(b'Iptc4xmpExt:DigitalSourceType="' + files.GENERATED.encode() + b'"/>', b">")
    element = f"<Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType></rdf:Description>"
    data = encode(noise(), "JPEG", xmp=written.replace(b"</rdf:RDF>", element.encode() + b"</rdf:RDF>"))
    assert [claim.says for claim in read_here(data)] == [says]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("keyword", "text", "tool"),
    [
        ("parameters", files.STABLE_DIFFUSION, "Stable Diffusion"),
        ("workflow", '{"last_node_id": 9, "nodes": []}', "ComfyUI"),
        ("prompt", '{"3": {"class_type": "KSampler"}}', "ComfyUI"),
        ("Software", "NovelAI", "NovelAI"),
        ("parameters", "f/2.8", None),
        ("prompt", "say cheese", None),
    ],
)
def test_texts_of_generators(keyword: str, text: str, tool: str | None, packed: bool) -> None:
    claims = read_here(files.png_with({keyword: text}, packed=packed))
    assert claims == ([Claim(kind="generator_text", says="generated", tool=tool)] if tool else [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_a_generator_s_text_in_the_comment_of_exif(encoding: str) -> None:
    exif = Image.Exif()
    head = b"ASCII\0\0\0" if encoding == "utf-8" else b"UNICODE\0"
    exif.get_ifd(0x8769)[0x9286] = head + files.STABLE_DIFFUSION.encode(encoding)
    (claim,) = read_here(encode(noise(), "JPEG", exif=exif.tobytes()))
    assert (claim.kind, claim.tool, claim.standing) == ("generator_text", "Stable Diffusion", "unsigned")


@pytest.mark.parametrize(
    "data",
    [
        encode(noise(), "JPEG", xmp=b"<x:xmpmeta"),
        encode(noise(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
        encode(noise(), "JPEG", exif=b"Exif\0\0garbage"),
        encode(noise())[:33] + png_chunk(b"zTXt", b"parameters\0\0garbage") + encode(noise())[33:],
        encode(noise(), "WEBP")[:40] + b"C2PA",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\0\x14meta\0\0\0\0\0\0\0\x08iinf",
    ],
    ids=["XMP", "EXIF with a wild offset", "EXIF", "text", "WebP", "HEIC"],
)
def test_damaged_parts_say_nothing(data: bytes) -> None:
    assert read_here(data) == []


def test_a_manifest_that_is_none_is_broken() -> None:
    segment = b"JP\0\1\0\0\0\1" + b"\0\0\0\x40jumb" + bytes(56)
    data = encode(noise(), "JPEG")
    claims = read_here(data[:2] + b"\xff\xeb" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:])
    assert [(claim.kind, claim.standing) for claim in claims] == [("c2pa", "broken")]
    assert claims[0].problem


def test_too_many_parts_or_too_large_ones_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = files.png_with({"parameters": files.STABLE_DIFFUSION})
    large = png_chunk(b"tEXt", b"parameters\0" + files.STABLE_DIFFUSION.encode() + bytes(2**20))
    assert read_here(encode(noise())[:33] + large + encode(noise())[33:]) == []
    monkeypatch.setattr("detector_core.images.png.MAX_PARTS", 2)
    assert read_here(data) == []


@pytest.mark.parametrize(
    "data",
    [
        attacks.avif_of_items(b"mime", 2000, bytes(2**16)),
        attacks.avif_of_items(b"Exif", 2000, bytes(2**16)),
        attacks.avif_of_items(b"mime", 1000, b"") + attacks.avif_of_items(b"mime", 1000, b"")[20:] * 50,
        plain("JPEG")[:2] + attacks.jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0") * 2000 + plain("JPEG")[2:],
        plain("PNG")[:33] + png_chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(2**16)) * 20 + plain("PNG")[33:],
        plain("WEBP")[:4] + b"\xff\xff\xff\0WEBP" + (b"XMP \0\0\1\0" + bytes(2**16)) * 20,
    ],
    ids=["AVIF, XMP", "AVIF, EXIF", "AVIF, lists of items", "JPEG", "PNG", "WebP"],
)
def test_finding_reads_a_file_once_or_twice(data: bytes) -> None:
    """It happens in the service's own process, so parts that share their bytes must not multiply the work."""
    counting = attacks.CountingBytes(data)
    statements.find(counting)
    assert 0 < counting.read < 3 * len(data) + 5000


def test_a_hostile_file_costs_no_more_than_its_bound() -> None:
    budget = CpuBudget(5)
    bomb = zlib.compress(bytes(2**25))
    chunks = b"".join(png_chunk(b"zTXt", b"parameters\0\0" + bomb) for _ in range(40))
    many = encode(noise())
    for claim in read(many[:33] + chunks + many[33:], budget=budget):  # a slow machine needs more than a file may take
        assert claim.problem == "reading it takes too much CPU time"
    laughs = b'<!DOCTYPE x [<!ENTITY a0 "ha">' + b"".join(
        b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 12)
    )
    assert read(encode(noise(), "JPEG", xmp=laughs + b"]><x>&a11;</x>"), budget=budget) == ()
    assert budget.used < 4


def test_a_child_ends_when_its_time_or_memory_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    data = files.signed(plain("PNG"), "image/png", padding=4 * 2**20)
    (claim,) = read(data, budget=CpuBudget(0.001))
    assert (claim.kind, claim.standing, claim.problem) == ("c2pa", "broken", "reading it takes too much CPU time")
    monkeypatch.setattr(provenance, "MEMORY_BYTES", 2**20)
    monkeypatch.setattr(provenance, "MEMORY_FACTOR", 0)
    (claim,) = read(data)
    assert (claim.kind, claim.standing) == ("c2pa", "broken")
    assert str(claim.problem).startswith("reading it failed (")


def test_without_time_or_when_the_reader_dies_the_claim_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    data = files.signed(plain("JPEG"), "image/jpeg")
    budget = CpuBudget(1)
    budget.used = 1
    (claim,) = read(data, budget=budget)
    assert (claim.kind, claim.standing) == ("c2pa", "broken")
    assert "CPU time" in str(claim.problem)

    original = child.Child.write

    def dies(self: child.Child, data: bytes) -> None:
        os.kill(self.pid, signal.SIGKILL)
        while not self.has_ended():
            time.sleep(0.001)
        original(self, data)

    monkeypatch.setattr(child.Child, "write", dies)
    for exif_or_xmp, kind in (({"exif": files.camera_exif()}, "camera"), ({"xmp": files.xmp()}, "iptc")):
        (claim,) = read(encode(noise(), "JPEG", **exif_or_xmp))
        assert (claim.kind, claim.standing, claim.problem) == (kind, "broken", "reading it failed (SIGKILL)")


def test_nobody_waits_any_more() -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        read(files.png_with({"parameters": files.STABLE_DIFFUSION}), cancellation=cancellation)


def test_a_list_of_signers_that_cannot_work_is_named(tmp_path: Path) -> None:
    file = tmp_path / "signers.pem"
    with pytest.raises(BadConfig, match=r"cannot be read: .*No such file"):
        read_signers(str(file))
    file.write_text("nobody")
    with pytest.raises(BadConfig, match="has no certificate: give a file of certificates in PEM"):
        read_signers(str(file))
    file.write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    with pytest.raises(BadConfig, match="cannot be used"):
        read_signers(str(file))
    file.write_text(files.signers())
    assert read_signers(str(file)) == files.signers()
