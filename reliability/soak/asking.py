"""Clients: as fast as they are answered, to see what a service can do, or at a pace."""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from reliability.soak.mixture import LEFT, MIXTURE, Kind

CLIENTS = 12
"""At most so many requests are under way; where a machine becomes slower the pace falls behind, and it is said."""
ANSWER_S = 60
SHOWN = 20
"""Wrong answers of which the text is kept."""


@dataclass
class Seen:
    """What was answered: seconds by the name of a kind, how many were wrong, what the first of them said."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    wrong: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(len(seconds) for seconds in self.seconds.values())

    def note(self, kind: Kind, seconds: float, status: int, body: bytes) -> None:
        """One answer."""
        self.seconds.setdefault(kind.name, []).append(seconds)
        if problem := _problem(kind, status, body):
            self.fail(kind.name, problem)
        elif kind.path.startswith("/v1/detect") and status == 200:
            found = json.loads(body)
            self.versions[(found.get("model") or found["results"][0]["model"])["version"]] += 1

    def fail(self, name: str, problem: str) -> None:
        """One that was not answered as it must be."""
        self.wrong[name] += 1
        if len(self.said) < SHOWN:
            self.said.append(f"{time.strftime('%H:%M:%S')} {name}: {problem}")


def _problem(kind: Kind, status: int, body: bytes) -> str:
    if status != kind.status:
        return f"{kind.status} was expected, {status} came: {body[:300].decode(errors='replace')}"
    if kind.code and json.loads(body)["error"]["code"] != kind.code:
        return f"the code {kind.code} was expected, {body[:300].decode(errors='replace')} came"
    return ""


async def ask(port: int, clients: int, until: Callable[[], bool], rate: float | None, seen: Seen) -> None:
    """Asks the mixture until ``until``, at most ``rate`` requests a second."""
    draw, number = random.Random(0), 0
    begun = time.monotonic()

    def next_one() -> tuple[int, Kind, float]:
        """Its number, what is asked, and for how long to wait before."""
        nonlocal number, begun
        number += 1
        (kind,) = draw.choices(MIXTURE, [kind.share for kind in MIXTURE])
        wait = begun + number / rate - time.monotonic() if rate else 0.0
        if wait < -1:  # too slow for the pace: what was missed is not made up for
            begun -= wait
        return number, kind, max(wait, 0.0)

    async def client(session: aiohttp.ClientSession) -> None:
        while not until():
            number, kind, wait = next_one()
            await asyncio.sleep(wait)
            if kind.status == LEFT:
                await _leave(port, kind.path, kind.body(number), half=number % 2 == 0)
                seen.seconds.setdefault(kind.name, []).append(0.0)
                continue
            started = time.perf_counter()
            try:
                status, body = await _answer(session, f"http://127.0.0.1:{port}{kind.path}", kind, number)
            except (aiohttp.ClientError, TimeoutError) as error:
                seen.seconds.setdefault(kind.name, []).append(time.perf_counter() - started)
                seen.fail(kind.name, repr(error))
                continue
            seen.note(kind, time.perf_counter() - started, status, body)

    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(ANSWER_S)) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))


async def _answer(session: aiohttp.ClientSession, url: str, kind: Kind, number: int) -> tuple[int, bytes]:
    body = kind.body(number)
    if body is None:
        request = session.get(url)
    elif isinstance(body, bytes):
        request = session.post(url, data=body, headers={"Content-Type": kind.kind})
    else:
        form = aiohttp.FormData()
        for name, value in body.items():
            for part in value if isinstance(value, list) else [value]:
                form.add_field(name, part, **({"filename": "a"} if isinstance(part, bytes) else {}))
        request = session.post(url, data=form)
    async with request as response:
        return response.status, await response.read()


async def _leave(port: int, path: str, body: object, *, half: bool) -> None:
    """Sends an image, or half of one, and is gone."""
    assert isinstance(body, bytes)
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    with contextlib.suppress(ConnectionError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + (body[: len(body) // 2] if half else body))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.close()
        await writer.wait_closed()
