"""Runs an attack against a service while an ordinary user sends it one image after another."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from reliability.attacks.attack import Attack, Outcome
from reliability.attacks.usage import cpu_seconds
from tests.support.http_service import image_bytes
from tests.support.serving import Service

PAUSE_S, CALM_S, END_S = 0.25, 3.0, 2.0
"""Pause of the ordinary user between two images, and how long this user goes on before and after an attack."""
MAX_S = 45
"""After this time a measurement is cut off."""
CLIENT_S = 100


@dataclass
class User:
    """What an ordinary user saw: the seconds of each request, and how many were refused."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0


async def run(service: Service, attack: Attack) -> Outcome:
    """Runs one attack."""
    bodies = await asyncio.to_thread(attack.make)
    url = f"http://127.0.0.1:{service.port}"
    timeout = aiohttp.ClientTimeout(CLIENT_S)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        calm, cpu_of_one = User(), 0.0
        before = cpu_seconds(service)
        until = time.monotonic() + CALM_S
        await _use(session, url, calm, lambda: time.monotonic() > until)
        cpu_of_one = (cpu_seconds(service) - before) / len(calm.seconds)

        user, over = User(), asyncio.Event()
        before = cpu_seconds(service)
        using = asyncio.create_task(_use(session, url, user, over.is_set))
        attacking = asyncio.gather(*(_attack(session, url, attack, body) for body in bodies))
        done, _ = await asyncio.wait([attacking], timeout=MAX_S)
        settled = bool(done) and await _settle(service)
        over.set()
        await using
        cpu_s = cpu_seconds(service) - before - cpu_of_one * len(user.seconds)
        counts = Counter(attacking.result()) if done else Counter({"no answer": len(bodies)})
        attacking.cancel()
    return Outcome(
        answers=", ".join(f"{count} x {answer}" for answer, count in counts.most_common()),
        cpu_s=round(max(0.0, cpu_s), 1),
        asked=len(user.seconds),
        refused=user.refused,
        slowest_s=round(max(user.seconds), 1),
        cut_off=not settled,
    )


async def _use(session: aiohttp.ClientSession, url: str, user: User, stop: Callable[[], bool]) -> None:
    """Sends one image after the other, at least one."""
    data = image_bytes((256, 256))
    while not user.seconds or not stop():
        started = time.monotonic()
        try:
            async with session.post(f"{url}/v1/detect", data=data, headers={"Content-Type": "image/jpeg"}) as response:
                await response.read()
                user.refused += response.status != 200
        except (aiohttp.ClientError, TimeoutError):
            user.refused += 1
        user.seconds.append(time.monotonic() - started)
        await asyncio.sleep(PAUSE_S)


async def _attack(session: aiohttp.ClientSession, url: str, attack: Attack, body: bytes) -> str:
    headers = {"Content-Type": attack.content_type}
    try:
        async with session.post(f"{url}{attack.path}", data=body, headers=headers) as response:
            await response.read()
            return str(response.status)
    except TimeoutError:
        return "no answer"
    except aiohttp.ClientError:
        return "disconnected"


async def _settle(service: Service) -> bool:
    """Waits until the replicas do no more than serve the ordinary user, for work that goes on after the answer.

    Returns whether they did within MAX_S.
    """
    until = time.monotonic() + MAX_S
    while time.monotonic() < until:
        shares = []
        for _ in range(3):
            before = cpu_seconds(service)
            await asyncio.sleep(END_S / 3)
            shares.append((cpu_seconds(service) - before) / (END_S / 3))
        if statistics.median(shares) < 0.5:
            return True
    return False
