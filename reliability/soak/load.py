"""Clients that send the mixture to a service, either as fast as it answers or at a fixed rate."""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from reliability.soak.mixture import DISCONNECTS, MIXTURE, RequestKind

CLIENTS = 12
"""The most requests that are in progress at once. A service that becomes slower is sent fewer requests."""
TIMEOUT_S = 60
SHOWN_PROBLEMS = 20
"""Of this many wrong responses the text is kept."""


@dataclass
class Responses:
    """What came back.

    Attributes:
        seconds: how long each request took, by the name of its kind.
        wrong: how many responses were not the expected one, by the name of the kind.
        problems: the first of these, in words.
        versions: how many images each version of the model predicted.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    wrong: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """The number of requests of all kinds."""
        return sum(len(seconds) for seconds in self.seconds.values())

    def add(self, kind: RequestKind, seconds: float, status: int, body: bytes) -> None:
        """Checks and counts one response."""
        self.seconds.setdefault(kind.name, []).append(seconds)
        if problem := _problem(kind, status, body):
            self.add_problem(kind.name, problem)
        elif kind.path.startswith("/v1/detect") and status == 200:
            answer = json.loads(body)
            self.versions[(answer.get("model") or answer["results"][0]["model"])["version"]] += 1

    def add_problem(self, name: str, problem: str) -> None:
        """Counts a response that was not the expected one."""
        self.wrong[name] += 1
        if len(self.problems) < SHOWN_PROBLEMS:
            self.problems.append(f"{time.strftime('%H:%M:%S')} {name}: {problem}")


def _problem(kind: RequestKind, status: int, body: bytes) -> str:
    text = body[:300].decode(errors="replace")
    if status != kind.status:
        return f"status {status}, expected {kind.status}: {text}"
    if kind.code and json.loads(body)["error"]["code"] != kind.code:
        return f"expected the code {kind.code}: {text}"
    return ""


async def send_mixture(
    port: int, clients: int, stop: Callable[[], bool], max_rate: float | None, responses: Responses
) -> None:
    """Sends the mixture until ``stop`` returns true.

    Args:
        port: of the service on loopback.
        clients: how many requests may be in progress at once.
        max_rate: requests a second; None sends each as soon as a client is free.
        responses: gets what comes back.
    """
    draw, number = random.Random(0), 0
    begun = time.monotonic()

    def next_request() -> tuple[int, RequestKind, float]:
        """Its number, its kind, and the seconds to wait before it is sent."""
        nonlocal number, begun
        number += 1
        (kind,) = draw.choices(MIXTURE, [kind.weight for kind in MIXTURE])
        wait = begun + number / max_rate - time.monotonic() if max_rate else 0.0
        if wait < -1:  # the service is too slow for the rate: drop the missed requests
            begun -= wait
        return number, kind, max(wait, 0.0)

    async def client(session: aiohttp.ClientSession) -> None:
        while not stop():
            number, kind, wait = next_request()
            await asyncio.sleep(wait)
            if kind.status == DISCONNECTS:
                await _send_and_disconnect(port, kind.path, kind.body(number), half=number % 2 == 0)
                responses.seconds.setdefault(kind.name, []).append(0.0)
                continue
            started = time.perf_counter()
            try:
                status, body = await _send(session, f"http://127.0.0.1:{port}{kind.path}", kind, number)
            except (aiohttp.ClientError, TimeoutError) as error:
                responses.seconds.setdefault(kind.name, []).append(time.perf_counter() - started)
                responses.add_problem(kind.name, repr(error))
                continue
            responses.add(kind, time.perf_counter() - started, status, body)

    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))


async def _send(session: aiohttp.ClientSession, url: str, kind: RequestKind, number: int) -> tuple[int, bytes]:
    body = kind.body(number)
    if body is None:
        request = session.get(url)
    elif isinstance(body, bytes):
        request = session.post(url, data=body, headers={"Content-Type": kind.content_type})
    else:
        form = aiohttp.FormData()
        for name, value in body.items():
            for part in value if isinstance(value, list) else [value]:
                form.add_field(name, part, **({"filename": "a"} if isinstance(part, bytes) else {}))
        request = session.post(url, data=form)
    async with request as response:
        return response.status, await response.read()


async def _send_and_disconnect(port: int, path: str, body: object, *, half: bool) -> None:
    """Sends an image, or half of one, and closes the connection."""
    assert isinstance(body, bytes)
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    with contextlib.suppress(ConnectionError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + (body[: len(body) // 2] if half else body))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.close()
        await writer.wait_closed()
