"""Who may ask, how often and how many at once: API keys, a rate for each address, room. Asked before a body is read."""

import hmac
import math
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

from fastapi import Request
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from detector_core.errors import BadConfig
from serve_app.errors import Busy, Refusal

_LOOK_AGAIN_S = 2.0
_KEEP_PREFIX = 64
"""One household or host has a whole IPv6 network of this length."""


class Keys:
    """The keys of a file: one a line, ``#`` begins a comment. Read again when the file changes.

    Raises:
        BadConfig: the file cannot be read, or holds no key, when the service starts.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._stamp: tuple[int, int] | None = None
        self._hashes: list[bytes] = []
        self._looked = -math.inf
        self._read()
        if not self._hashes:
            raise BadConfig(f"api_keys_file is {path}: it holds no key, one a line")

    def hold(self, key: str) -> bool:
        """Whether the key is one of them. Takes as long for a wrong key as for any other."""
        if time.monotonic() - self._looked > _LOOK_AGAIN_S:
            self._read()
        digest = sha256(key.encode("utf-8", "surrogateescape")).digest()
        return sum([hmac.compare_digest(digest, known) for known in self._hashes]) > 0

    def _read(self) -> None:
        self._looked = time.monotonic()
        try:
            found = self._path.stat()
            if self._stamp == (found.st_mtime_ns, found.st_size):
                return
            lines = self._path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            if self._stamp is None:
                raise BadConfig(f"api_keys_file is {self._path}: it cannot be read ({error})") from None
            return  # being replaced, perhaps: the keys that are known stay
        self._stamp = found.st_mtime_ns, found.st_size
        keys = [line.partition("#")[0].strip() for line in lines]
        self._hashes = [sha256(key.encode()).digest() for key in keys if key]


class Guard:
    """A dependency of the routes that judge and keep: refuses with 429 and 401.

    Args:
        keys: None where everybody may ask.
        rate_per_minute: requests of one client address; 0 for no limit. Counted in this process.
        trusted_proxies: addresses or networks whose X-Forwarded-For is believed.
    """

    def __init__(self, keys: Keys | None, rate_per_minute: int, trusted_proxies: list[str]) -> None:
        self._keys = keys
        self._rate = RateLimitItemPerMinute(rate_per_minute) if rate_per_minute else None
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage()) if rate_per_minute else None
        try:
            self._trusted = [ip_network(proxy, strict=False) for proxy in trusted_proxies]
        except ValueError as error:
            raise BadConfig(f"trusted_proxies: {error}") from None

    async def __call__(self, request: Request) -> None:
        """Raises Refusal."""
        if self._rate and self._limiter:
            client = self.client(request)
            if not self._limiter.hit(self._rate, client):
                wait = max(1, math.ceil(self._limiter.get_window_stats(self._rate, client).reset_time - time.time()))
                raise Refusal(429, f"at most {self._rate.amount} requests a minute", headers={"Retry-After": str(wait)})
        if self._keys and not self._keys.hold(_key_of(request)):
            message = "an API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY"
            raise Refusal(401, message, headers={"WWW-Authenticate": "Bearer"})

    def client(self, request: Request) -> str:
        """The address that is counted: behind trusted proxies the last one in X-Forwarded-For that is none of them."""
        peer = request.client.host if request.client else ""
        forwarded = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
        for said in [peer, *reversed(forwarded)]:
            address = _address(said)
            if address is None:
                break
            peer = _network(address)
            if not any(address in network for network in self._trusted):
                break
        return peer


class Room:
    """A dependency: bounds the requests, and the bytes of their bodies, that this process has in hand at once.

    A body is counted as it arrives, so that a client that states a large one and sends nothing takes no room; what it
    states is only held against the room that is left. All of it is given back when the request ends, however it does.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._open = self._bytes = 0

    @property
    def in_hand(self) -> tuple[int, int]:
        """Requests and bytes."""
        return self._open, self._bytes

    async def __call__(self, request: Request) -> AsyncIterator[None]:
        """Raises Busy."""
        left, stated = self._most_bytes - self._bytes, stated_bytes(request)
        if self._open >= self._most or left < stated <= self._most_bytes:  # more than all is too large, not too much
            raise Busy
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            if self._bytes + count > self._most_bytes:
                raise Busy
            taken += count
            self._bytes += count

        request.state.take = take
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            self._bytes -= taken


def take_room(request: Request, count: int) -> None:
    """Counts bytes that a request holds from now on, where a Room is. Raises Busy."""
    take = getattr(request.state, "take", None)
    if take:
        take(count)


def stated_bytes(request: Request) -> int:
    """The length of the body that the request states; 0 where it states none."""
    stated = request.headers.get("content-length", "")
    return int(stated) if stated.isdecimal() else 0


def _key_of(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


def _address(said: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(said.strip())
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _network(address: IPv4Address | IPv6Address) -> str:
    if address.version == 4:
        return str(address)
    return str(ip_network((address, _KEEP_PREFIX), strict=False))
