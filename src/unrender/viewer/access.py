"""Who may open the viewer: checks of each HTTP request, including those that open a websocket.

Any page in a browser can send requests to a server on the same machine. The name that a request is addressed to
(`Host`) has to be one of this machine's, so that no other name can be pointed at it (DNS rebinding), and the page that
sends it (`Origin`) has to be the viewer's own. Where others on the network can connect, the address contains a token.
"""

import dataclasses
import functools
import hmac
import ipaddress
import re
import secrets
import socket
from typing import NamedTuple, Protocol, Self
from urllib.parse import parse_qsl

HOST_HEADER = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?", re.IGNORECASE)
TOKEN_BYTES = 24
FORBIDDEN, NOT_FOUND, SEE_OTHER, OK = 403, 404, 303, 200


class Headers(Protocol):
    """The headers of a request."""

    def get_all(self, key: str, /) -> list[str]:
        """Return all values of a header, whatever its case."""


class Decision(NamedTuple):
    """How to answer a request: OK with the path to serve, SEE_OTHER with the path to go to, or FORBIDDEN."""

    status: int
    path: str = "/"
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Access:
    """The rules for a server that listens on `host`."""

    host: str
    token: str | None
    """Secret in the address, without which nothing is served; None if only this machine can connect."""

    @classmethod
    def for_host(cls, host: str) -> Self:
        """Return the rules for an address to listen on, with a new token unless it is a loopback address."""
        return cls(host, None if is_loopback(host) else secrets.token_urlsafe(TOKEN_BYTES))

    def url(self, port: int) -> str:
        """Return the address of the page, to be opened on this machine."""
        host = self.host.strip("[]")
        name = "localhost" if host in ("", "0.0.0.0", "::", "127.0.0.1") else host
        name = f"[{name}]" if ":" in name else name
        return f"http://{name}:{port}" + ("" if self.token is None else f"/?token={self.token}")

    def decide(self, target: str, headers: Headers) -> Decision:
        """Check a request for `target`, a path with its query."""
        host = _only(headers.get_all("Host"))
        if host is None or not self._is_ours(host):
            return Decision(
                FORBIDDEN, reason=f"this viewer does not answer to the name {(host or '')[:80]!r}"
            )
        origins = headers.get_all("Origin")
        if origins and _only(origins) not in (f"http://{host}", f"https://{host}"):
            return Decision(FORBIDDEN, reason="this viewer does not answer to other pages")
        if not _is_navigation_or_ours(headers):
            return Decision(FORBIDDEN, reason="this viewer does not answer to other pages")
        path, _, query = target.partition("?")
        options = parse_qsl(query, keep_blank_values=True)
        own = {
            f"{scheme}://{host}{'' if self.token is None else '/' + self.token}" for scheme in ("ws", "wss")
        }
        for (
            name,
            value,
        ) in options:  # with `websocket`, the page connects to any server; it adds its own for a reload
            if name != "token" and not (name == "websocket" and value in own):
                return Decision(FORBIDDEN, reason=f"this viewer does not take {name[:80]!r} in its address")
        return self._decide_by_token(path, [value for name, value in options if name == "token"])

    def _decide_by_token(self, path: str, given: list[str]) -> Decision:
        """Look for the token in the query, or as the first part of the path, which relative addresses keep."""
        if self.token is None:
            return Decision(OK, path)
        if given:
            fits = all(self._is_token(value) for value in given)
            found = Decision(SEE_OTHER, f"/{self.token}/")
        else:
            first, _, rest = path.removeprefix("/").partition("/")
            fits, found = self._is_token(first), Decision(OK, f"/{rest}")
        return (
            found
            if fits
            else Decision(FORBIDDEN, reason="the address lacks the token that was printed at the start")
        )

    def _is_token(self, value: str) -> bool:
        assert self.token is not None
        return hmac.compare_digest(value.encode(errors="replace"), self.token.encode())

    def _is_ours(self, header: str) -> bool:
        """Return whether a Host header names this machine."""
        match = HOST_HEADER.fullmatch(header)
        if match is None:
            return False
        name = match["name"].lower().strip("[]").removesuffix(".")
        address = _address(name)
        if name in ("localhost", self.host.lower().strip("[]")):
            return True
        if self.token is None:
            return address is not None and address.is_loopback
        return address is not None or name in _names_of_this_machine()


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to an address to listen on; False for a name that is unknown."""
    name = host.strip("[]")
    if not name:  # all interfaces
        return False
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    addresses = [_address(str(info[4][0])) for info in found]
    return all(address is not None and address.is_loopback for address in addresses)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a numeric address; None for a name."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


@functools.cache
def _names_of_this_machine() -> frozenset[str]:
    name = socket.gethostname().lower()
    return frozenset(
        {name, name.partition(".")[0], f"{name.partition('.')[0]}.local", socket.getfqdn().lower()}
    )


def _only(values: list[str]) -> str | None:
    return values[0] if len(values) == 1 else None


def _is_navigation_or_ours(headers: Headers) -> bool:
    """Return False for what another page embeds or requests, as far as the browser says so."""
    site = _only(headers.get_all("Sec-Fetch-Site"))
    if site in (None, "none", "same-origin"):
        return True
    return (
        _only(headers.get_all("Sec-Fetch-Mode")) == "navigate"
        and _only(headers.get_all("Sec-Fetch-Dest")) == "document"
    )
