"""Closed-loop HTTP clients: each connection sends its next image as soon as it has an answer.

``wrk`` (Debian's package of that name) takes a twentieth of a millisecond for a request. Where it is not installed, an
aiohttp client is used, which takes a third of one from the cores of the service.
"""

import asyncio
import json
import resource
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

BOUNDARY = "benchmark-boundary"
TIMEOUT_S = 120
SCRIPT = """
local bodies, number = {}, 0
for path in io.popen("ls FOLDER/*.body"):lines() do
  local file = io.open(path, "rb")
  table.insert(bodies, file:read("*a"))
  file:close()
end
wrk.headers["Content-Type"] = "multipart/form-data; boundary=BOUNDARY"
function request()
  number = number + 1
  return wrk.format("POST", nil, nil, bodies[number % #bodies + 1])
end
function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  io.write(string.format('{"requests": %d, "microseconds": %d, "failed": %d, "latencies": [',
    summary.requests, summary.duration, failed))
  for i = 1, #latency do
    local value, count = latency(i)
    io.write(string.format("%s[%d, %d]", i > 1 and ", " or "", value, count))
  end
  io.write("]}\\n")
end
"""


@dataclass
class Measured:
    """What a client measured.

    Attributes:
        latencies: how often an answer took so many microseconds.
        failed: requests without an answer of status 200.
        client_ms: CPU milliseconds of the client for a request.
    """

    seconds: float = 0.0
    latencies: Counter[int] = field(default_factory=Counter)
    failed: int = 0
    client_ms: float = 0.0

    @property
    def answered(self) -> int:
        """The number of answers."""
        return self.latencies.total()

    def quantile(self, fraction: float) -> float | None:
        """A quantile of the latency in milliseconds; None if nothing was answered."""
        left = fraction * self.answered
        for microseconds, count in sorted(self.latencies.items()):
            left -= count
            if left < 0:
                return microseconds / 1000
        return max(self.latencies) / 1000 if self.latencies else None


class Client:
    """Sends images to ``POST /v1/detect`` on this machine; ``name`` says with which program.

    Args:
        folder: an empty folder for files of the client.
    """

    def __init__(self, images: list[bytes], folder: Path) -> None:
        self._images, self._folder = images, folder
        wrk = shutil.which("wrk")
        self.name = "wrk" if wrk else "aiohttp (wrk is not installed)"
        self._send = self._with_wrk if wrk else self._with_aiohttp
        for number, image in enumerate(images):
            (folder / f"{number:03}.body").write_bytes(_form(image))
        (folder / "form.lua").write_text(SCRIPT.replace("FOLDER", str(folder)).replace("BOUNDARY", BOUNDARY))

    def send(self, port: int, connections: int, seconds: float) -> Measured:
        """Sends requests for a number of seconds."""
        return self._send(f"http://127.0.0.1:{port}/v1/detect", connections, seconds)

    def _with_wrk(self, url: str, connections: int, seconds: float) -> Measured:
        command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{round(seconds)}s"]
        command += ["--timeout", f"{TIMEOUT_S}s", "--script", str(self._folder / "form.lua"), url]
        before = _child_ms()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout.strip().splitlines()[-1])
        latencies = Counter(dict(result["latencies"]))
        spent = (_child_ms() - before) / max(result["requests"], 1)
        return Measured(result["microseconds"] / 1e6, latencies, result["failed"], spent)

    def _with_aiohttp(self, url: str, connections: int, seconds: float) -> Measured:
        measured, started = Measured(), time.process_time()
        asyncio.run(self._send_all(url, connections, seconds, measured))
        measured.client_ms = 1000 * (time.process_time() - started) / max(measured.answered, 1)
        return measured

    async def _send_all(self, url: str, connections: int, seconds: float, measured: Measured) -> None:
        begin = time.perf_counter()

        async def send_on(session: aiohttp.ClientSession, number: int) -> None:
            while (started := time.perf_counter()) < begin + seconds:
                number += 1
                form = aiohttp.FormData()
                form.add_field("file", self._images[number % len(self._images)], filename="a.jpg")
                async with session.post(url, data=form) as response:
                    await response.read()
                    if response.status == 200:
                        measured.latencies[round(1e6 * (time.perf_counter() - started))] += 1
                    else:
                        measured.failed += 1

        connector = aiohttp.TCPConnector(limit=connections)
        timeout = aiohttp.ClientTimeout(TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(*(send_on(session, number) for number in range(connections)))
        measured.seconds = time.perf_counter() - begin


def _form(image: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg'
    return head.encode() + b"\r\n\r\n" + image + f"\r\n--{BOUNDARY}--\r\n".encode()


def _child_ms() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (usage.ru_utime + usage.ru_stime)
