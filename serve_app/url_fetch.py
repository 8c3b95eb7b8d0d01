"""The bytes behind an address that a client names, without lending the client this machine's place in the network.

Only http and https on their own ports, only public addresses: the name is resolved here, every address it has is
checked, and the connection goes to the checked one, so that a second answer of the name server changes nothing. Each
redirect is a new address and is checked likewise. Size and time are bounded.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import cache
from ipaddress import IPv6Network, ip_address

import httpx

from serve_app.errors import Refusal

MAX_REDIRECTS = 3
TIMEOUT_S = 10.0
PORTS = (80, 443)
AGENT = "deepfake-face-detector"
_MAX_URL = 2048
_ASSIGNED = IPv6Network("2000::/3")
_NOT_ASKED = (IPv6Network("3fff::/20"),)
"""For documentation; Python's own tables may be older."""


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet: not private, loopback, link-local, multicast or translated."""
    found = ip_address(address)
    if found.version == 6:
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif (
            found not in _ASSIGNED or found.sixtofour or found.teredo or any(found in network for network in _NOT_ASKED)
        ):  # translated addresses lie outside
            return False
    return found.is_global and not found.is_multicast


@cache
def _certificates() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # reads a file of hundreds of kilobytes


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def fetch(address: str, max_bytes: int, take: Callable[[int], None] = lambda _: None) -> bytes:
    """What lies behind an address; ``take`` hears of its bytes as they arrive. Raises Refusal: 422 ``bad_url``, 413."""
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpx.AsyncClient(
                trust_env=False, follow_redirects=False, timeout=TIMEOUT_S, verify=_certificates()
            ) as client,
        ):
            for _ in range(MAX_REDIRECTS + 1):
                url = _parsed(address)
                response = await client.send(await _request(client, url), stream=True)
                try:
                    if not response.has_redirect_location:
                        return await _body(response, max_bytes, take)
                    address = str(url.join(response.headers["location"]))
                finally:
                    await response.aclose()
    except TimeoutError:
        raise _bad(f"it did not answer within {TIMEOUT_S:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, ValueError) as error:
        raise _bad(f"it cannot be fetched ({type(error).__name__})") from None
    raise _bad(f"it leads on more than {MAX_REDIRECTS} times")


def _parsed(address: str) -> httpx.URL:
    if len(address) > _MAX_URL:
        raise _bad("it is too long")
    url = httpx.URL(address)
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise _bad("only http and https addresses without a password are fetched")
    if _port(url) not in PORTS:
        raise _bad(f"only the ports {' and '.join(map(str, PORTS))} are asked")
    return url


def _port(url: httpx.URL) -> int:
    return url.port or {"http": 80, "https": 443}[url.scheme]


async def _request(client: httpx.AsyncClient, url: httpx.URL) -> httpx.Request:
    """A request to the checked address itself; host and certificate are those of the name."""
    host = url.raw_host.decode("ascii").strip("[]")
    try:
        addresses = await resolve(host, _port(url))
    except OSError:
        raise _bad("its host is not known") from None
    if not addresses or not all(is_public(found) for found in addresses):
        raise _bad("its host is not on the open internet")
    return client.build_request(
        "GET",
        url.copy_with(host=addresses[0]),
        headers={
            "User-Agent": AGENT,
            "Host": url.netloc.decode("ascii"),
            "Accept": "image/*",
            "Accept-Encoding": "identity",
        },
        extensions={"sni_hostname": host},
    )


async def _body(response: httpx.Response, max_bytes: int, take: Callable[[int], None]) -> bytes:
    if response.status_code != 200:
        raise _bad(f"it answered {response.status_code}")
    if "content-encoding" in response.headers and response.headers["content-encoding"] != "identity":
        raise _bad("it answered in a compressed form that was not asked for")
    parts, total = [], 0
    async for part in response.aiter_raw():
        total += len(part)
        if total > max_bytes:
            raise Refusal(413, f"what lies behind the url is larger than {max_bytes / 2**20:g} MiB")
        take(len(part))
        parts.append(part)
    return b"".join(parts)


def _bad(reason: str) -> Refusal:
    return Refusal(422, f"the url is not used: {reason}", "bad_url")
