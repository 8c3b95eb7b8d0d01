"""Downloads an image from a URL that a client sends, without giving the client access to this machine's network (SSRF).

Only http and https on their default ports, and only public addresses: the host name is resolved once, every address it
resolves to is checked, and the connection goes to a checked address, so that DNS rebinding has no effect. Each redirect
is checked in the same way. Size and time are limited.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Any

import httpx

from serve_app.errors import Refusal

MAX_REDIRECTS = 3
TIMEOUT_S = 10.0
PORTS = (80, 443)
AGENT = "deepfake-face-detector"
_MAX_URL = 2048
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NOT_PUBLIC = tuple(
    ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's platform services, reachable from every virtual machine there
        "192.0.0.0/24",  # IETF protocol assignments; Oracle Cloud has services here
        "192.88.99.0/24",  # relays to IPv6, retired by RFC 7526
        "2001::/23",  # IETF protocol assignments, among them Teredo
        "2002::/16",  # addresses that embed one of IPv4 (6to4)
        "3fff::/20",  # documentation (RFC 9637)
    )
)
"""Addresses that :mod:`ipaddress` calls global in some or all versions of Python, and that are not on the internet."""


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet: not private, loopback, link-local, multicast or translated."""
    ip = ip_address(address)
    if ip.version == 6:
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip not in _GLOBAL_UNICAST:  # such as the translated addresses of NAT64
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC)


@cache
def _certificates() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # cached because it reads a file of hundreds of kilobytes


async def resolve(host: str, port: int) -> list[str]:
    """Resolves a host name to its IP addresses. Raises OSError."""
    loop = asyncio.get_running_loop()
    entries = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


async def fetch(address: str, max_bytes: int, on_bytes: Callable[[int], None] = lambda _: None) -> bytes:
    """Downloads what a URL leads to.

    Args:
        on_bytes: called with the number of bytes as they arrive; may raise to stop the download.

    Raises:
        Refusal: 422 ``bad_url`` for a URL that is not allowed or does not work, 413 for too many bytes.
    """
    async with _exchange("downloaded") as client:
        for _ in range(MAX_REDIRECTS + 1):
            url = _parsed(address)
            response = await client.send(await _request(client, url), stream=True)
            try:
                if not response.has_redirect_location:
                    return await _body(response, max_bytes, on_bytes)
                address = str(url.join(response.headers["location"]))
            finally:
                await response.aclose()
    raise _bad(f"it redirects more than {MAX_REDIRECTS} times")


def _parsed(address: str) -> httpx.URL:
    if len(address) > _MAX_URL:
        raise _bad("it is too long")
    url = httpx.URL(address)
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise _bad("it must be an http or https URL without user name and password")
    if _port(url) not in PORTS:
        raise _bad(f"its port must be {' or '.join(map(str, PORTS))}")
    return url


def _port(url: httpx.URL) -> int:
    return url.port or {"http": 80, "https": 443}[url.scheme]


async def post(address: str, body: bytes, headers: dict[str, str]) -> int:
    """Sends JSON to a URL, with the same checks; returns the status. Raises Refusal (422) if that is not possible."""
    async with _exchange("called") as client:
        request = await _request(client, _parsed(address), "POST", body, headers)
        response = await client.send(request, stream=True)
        await response.aclose()
        return response.status_code


@asynccontextmanager
async def _exchange(done: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client for what is to be ``done`` with a URL in TIMEOUT_S; errors of the network and of the URL are refused."""
    options: dict[str, Any] = {"trust_env": False, "follow_redirects": False, "timeout": TIMEOUT_S}
    try:
        async with asyncio.timeout(TIMEOUT_S), httpx.AsyncClient(**options, verify=_certificates()) as client:
            yield client
    except TimeoutError:
        raise _bad(f"its server did not answer within {TIMEOUT_S:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, ValueError) as error:
        raise _bad(f"it cannot be {done} ({type(error).__name__})") from None


async def _request(
    client: httpx.AsyncClient,
    url: httpx.URL,
    method: str = "GET",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Request:
    """A request to a checked IP address, with the Host header and the certificate check of the host name."""
    host = url.raw_host.decode("ascii").strip("[]")
    try:
        addresses = await resolve(host, _port(url))
    except OSError:
        raise _bad("its host name cannot be resolved") from None
    if not addresses or not all(is_public(address) for address in addresses):
        raise _bad("its host is not on the public internet")
    return client.build_request(
        method,
        url.copy_with(host=addresses[0]),
        content=body,
        headers={
            "User-Agent": AGENT,
            "Host": url.netloc.decode("ascii"),
            "Accept-Encoding": "identity",
            **({"Accept": "image/*"} if body is None else {"Content-Type": "application/json"}),
            **(headers or {}),
        },
        extensions={"sni_hostname": host},
    )


async def _body(response: httpx.Response, max_bytes: int, on_bytes: Callable[[int], None]) -> bytes:
    if response.status_code != 200:
        raise _bad(f"its server answered with status {response.status_code}")
    if "content-encoding" in response.headers and response.headers["content-encoding"] != "identity":
        raise _bad("its server sent a content encoding that was not requested")
    parts, total = [], 0
    async for part in response.aiter_raw():
        total += len(part)
        if total > max_bytes:
            raise Refusal(413, f"the image at this URL is larger than {max_bytes / 2**20:g} MiB", budget="bytes")
        on_bytes(len(part))
        parts.append(part)
    return b"".join(parts)


def _bad(reason: str) -> Refusal:
    return Refusal(422, f"the URL cannot be used: {reason}", "bad_url")
