"""Access control: API keys and a rate limit per client address, both checked before a body is read."""

import hmac
import math
import time
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

from fastapi import Request
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from detector_core.errors import BadConfig
from serve_app.errors import Refusal

_RELOAD_S = 2.0
"""The key file is checked for changes at most this often."""
_IPV6_PREFIX = 64
"""Prefix length of the IPv6 network that one household or host usually has; each such network counts as one client."""


class ApiKeys:
    """The keys in a file: one per line, ``#`` starts a comment. The file is read again when it changes.

    Args:
        setting: the name of the setting that names the file, for messages.

    Raises:
        BadConfig: the file cannot be read, or holds no key, when the service starts.
    """

    def __init__(self, path: str, setting: str = "api_keys_file") -> None:
        self._path, self._setting = Path(path), setting
        self._stamp: tuple[int, int] | None = None
        self._hashes: list[bytes] = []
        self._checked = -math.inf
        self._read()
        if not self._hashes:
            raise BadConfig(f"{setting} {path} holds no key: write one key per line")

    def accepts(self, key: str) -> bool:
        """Whether a key is valid. The comparison takes the same time for a wrong key as for a valid one."""
        if time.monotonic() - self._checked > _RELOAD_S:
            self._read()
        digest = sha256(key.encode("utf-8", "surrogateescape")).digest()
        return sum([hmac.compare_digest(digest, known) for known in self._hashes]) > 0

    def _read(self) -> None:
        self._checked = time.monotonic()
        try:
            status = self._path.stat()
            if self._stamp == (status.st_mtime_ns, status.st_size):
                return
            lines = self._path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            if self._stamp is None:
                raise BadConfig(f"{self._setting} {self._path} cannot be read: {error}") from None
            return  # the file may be in the middle of being replaced: keep the previous keys
        self._stamp = status.st_mtime_ns, status.st_size
        keys = [line.partition("#")[0].strip() for line in lines]
        self._hashes = [sha256(key.encode()).digest() for key in keys if key]


class AccessControl:
    """A FastAPI dependency of the routes that predict or store: refuses requests with 429 or 401.

    Args:
        keys: the valid keys; None requires no key.
        requests_per_minute: limit per client address, counted in this process; 0 for no limit.
        trusted_proxies: addresses or networks of proxies whose X-Forwarded-For header is trusted.

    Raises:
        BadConfig: a trusted proxy is neither an address nor a network.
    """

    def __init__(self, keys: ApiKeys | None, requests_per_minute: int, trusted_proxies: list[str]) -> None:
        self._keys = keys
        self._limit = RateLimitItemPerMinute(requests_per_minute) if requests_per_minute else None
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage()) if requests_per_minute else None
        try:
            self._trusted = [ip_network(proxy, strict=False) for proxy in trusted_proxies]
        except ValueError as error:
            raise BadConfig(f"trusted_proxies: {error}") from None

    async def __call__(self, request: Request) -> None:
        """Checks one request. Raises Refusal: 429 over the rate limit, 401 without a valid key."""
        if self._limit and self._limiter:
            client = self.client_address(request)
            if not self._limiter.hit(self._limit, client):
                reset = self._limiter.get_window_stats(self._limit, client).reset_time
                wait = max(1, math.ceil(reset - time.time()))
                message = f"more than {self._limit.amount} requests per minute came from this address"
                raise Refusal(429, message, headers={"Retry-After": str(wait)})
        if self._keys and not self._keys.accepts(_key_of(request)):
            message = "a valid API key is required: send it as Authorization: Bearer KEY or X-API-Key: KEY"
            raise Refusal(401, message, headers={"WWW-Authenticate": "Bearer"})

    def giver(self, request: Request) -> str:
        """Who sends a request: its API key, if the service has keys, or else its client address."""
        return f"key {_key_of(request)}" if self._keys else f"network {self.client_address(request)}"

    def client_address(self, request: Request) -> str:
        """The address that a request counts for: the last one in X-Forwarded-For that is not a trusted proxy's."""
        peer = request.client.host if request.client else ""
        forwarded = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
        for text in [peer, *reversed(forwarded)]:
            address = _parse_address(text)
            if address is None:
                break
            peer = _client_network(address)
            if not any(address in network for network in self._trusted):
                break
        return peer


def _key_of(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _client_network(address: IPv4Address | IPv6Address) -> str:
    if address.version == 4:
        return str(address)
    return str(ip_network((address, _IPV6_PREFIX), strict=False))
