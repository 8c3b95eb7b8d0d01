"""detector_core.images.decoder: the same pixels from a child process, and images that would cost too much."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from detector_core.errors import BadImage, TooCostly, TooManyPixels, UnsupportedFormat
from detector_core.images import child, decoder, metadata
from detector_core.images.budget import CpuBudget
from detector_core.images.child import Cancellation, Cancelled, Crashed
from detector_core.images.decode import decode_file
from detector_core.images.decoder import SandboxedImage, opened_in_child
from detector_core.images.formats import BUILT_IN as FORMATS
from tests.support.attacks import flat_image, repeated_scans
from tests.support.images import encode, noise, personal_image


@pytest.fixture(scope="module", autouse=True)
def no_child_is_left() -> Iterator[None]:
    yield
    decoder.CHILDREN.stop_idle()


def idle_pids() -> list[int]:
    return [idle.pid for idle in decoder.CHILDREN.idle]


@pytest.mark.parametrize("format_", FORMATS)
def test_images_are_the_same_as_without_a_child(format_: str) -> None:
    data = personal_image(format_, 6)
    with opened_in_child(data) as image:
        assert {image.width, image.height} == {40, 30}
        decoded = image.decode()
    expected = decode_file(data)
    assert (decoded.image_HWC == expected.image_HWC).all()
    assert (decoded.metadata_intact, decoded.animated) == (expected.metadata_intact, expected.animated)
    assert decoded.quantization == expected.quantization
    with opened_in_child(data) as image:
        assert image.strip() == metadata.strip(data)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"text", BadImage),
        (encode(noise(), "JPEG")[:600], BadImage),
        (encode(noise(size=(60, 60))), TooManyPixels),
        (encode(noise(), "TIFF"), UnsupportedFormat),
    ],
    ids=["text", "cut off", "too large", "not accepted"],
)
def test_errors_are_the_same_as_without_a_child_which_stays(data: bytes, error: type[BadImage]) -> None:
    decoder.CHILDREN.warm_up()
    pids = idle_pids()
    with pytest.raises(BadImage) as expected:
        decode_file(data, max_pixels=2000, accepted=("JPEG", "PNG"))
    with pytest.raises(error) as raised, opened_in_child(data, max_pixels=2000, accepted=("JPEG", "PNG")) as image:
        image.decode()
    assert (raised.type, str(raised.value)) == (expected.type, str(expected.value))
    assert idle_pids() == pids


def test_a_child_is_used_again() -> None:
    decoder.CHILDREN.warm_up()
    pids = idle_pids()
    for _ in range(3):
        with opened_in_child(encode(noise())) as image:
            assert image.decode().image_HWC.shape == (30, 40, 3)
    assert idle_pids() == pids


def test_threads_do_not_share_a_child() -> None:
    images = [encode(noise(size=(side, side))) for side in range(20, 36)]
    shapes: dict[int, tuple[int, ...]] = {}

    def work(index: int) -> None:
        with opened_in_child(images[index]) as image:
            shapes[index] = image.decode().image_HWC.shape

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert shapes == {index: (20 + index, 20 + index, 3) for index in range(16)}
    assert len(set(idle_pids())) == len(idle_pids())


def test_an_image_ends_with_its_budget_of_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder.CHILDREN.warm_up()
    pids, budget = idle_pids(), CpuBudget(5)
    monkeypatch.setattr(decoder, "CPU_S", 0.02)
    monkeypatch.setattr(decoder, "CPU_S_PER_MEGAPIXEL", 0.0)
    data = repeated_scans(flat_image("JPEG", (2000, 1500)), 190)
    with pytest.raises(TooCostly, match=r"an image may take 0\.0 s"), opened_in_child(data, budget=budget) as image:
        image.decode()
    assert budget.used < 0.1
    assert idle_pids()[-1:] != pids[-1:]
    monkeypatch.undo()
    with opened_in_child(data, budget=budget) as image:
        assert image.decode().image_HWC.shape == (1500, 2000, 3)
    assert 0.1 < budget.used < 5


def test_an_image_without_any_budget_left_is_too_costly() -> None:
    budget = CpuBudget(1)
    budget.used = 1.0
    with pytest.raises(TooCostly), opened_in_child(encode(noise()), budget=budget):
        pass


def test_a_child_that_returns_too_large_an_image_is_noticed() -> None:
    with opened_in_child(encode(noise())) as image:
        image._max_pixels = 10
        with pytest.raises(Crashed, match="too many pixels"):
            image.decode()


def decode_cancelled(image: SandboxedImage, cancellation: Cancellation) -> None:
    cancellation.cancel()
    image.decode()


def crash(image: SandboxedImage) -> None:
    os.kill(image._child.pid, signal.SIGSEGV)
    image.decode()


def test_cancelling_ends_the_child_and_another_takes_its_place() -> None:
    cancellation = Cancellation()
    decoder.CHILDREN.warm_up()
    (*_, pid) = idle_pids()
    with pytest.raises(Cancelled), opened_in_child(encode(noise()), cancellation=cancellation) as image:
        decode_cancelled(image, cancellation)
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(Cancelled), opened_in_child(encode(noise()), cancellation=cancellation):
        pass
    with opened_in_child(encode(noise())) as image:
        assert image.decode().image_HWC.shape == (30, 40, 3)


def test_an_image_that_nobody_decodes_costs_its_child() -> None:
    with opened_in_child(encode(noise())) as image:
        pid = image._child.pid
    assert not Path(f"/proc/{pid}").exists()


def test_an_idle_child_that_somebody_kills_is_replaced() -> None:
    decoder.CHILDREN.warm_up()
    (*_, pid) = idle_pids()
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with opened_in_child(encode(noise())) as image:
        assert image.decode().image_HWC.shape == (30, 40, 3)
    assert pid not in idle_pids()


def test_a_child_that_crashes_is_a_damaged_image() -> None:
    reason = r"damaged image: decoding it failed \(SIGSEGV\)"
    with pytest.raises(BadImage, match=reason), opened_in_child(encode(noise())) as image:
        crash(image)


def test_a_child_that_does_not_start_is_not_the_fault_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder.CHILDREN.stop_idle()
    monkeypatch.setattr(child, "_CODE", "raise SystemExit(3)")
    with pytest.raises(RuntimeError, match=r"does not start: exit code 3"), opened_in_child(encode(noise())):
        pass


def test_a_bug_in_the_child_is_not_taken_for_a_damaged_image() -> None:
    with pytest.raises(RuntimeError, match="KeyError"), opened_in_child(encode(noise())) as image:
        image.ask({}, 1.0)


def test_a_child_has_no_environment_no_files_and_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder.CHILDREN.stop_idle()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    decoder.CHILDREN.warm_up()
    (pid,) = idle_pids()
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    with opened_in_child(encode(noise()), max_pixels=1_000_000) as image:
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        image.decode()
    soft = {line[:26].strip(): line[26:].split()[0] for line in limits}
    assert (soft["Max file size"], soft["Max core file size"]) == ("0", "0")
    assert int(soft["Max open files"]) == len(list(Path(f"/proc/{pid}/fd").iterdir()))
    memory = int(soft["Max address space"])
    in_use = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    assert memory < in_use + 2 * (decoder.BYTES_PER_PIXEL * 1_000_000 + decoder.FIXED_BYTES)
