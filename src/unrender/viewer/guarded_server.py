"""The server of viser behind checks of who connects and of what pages send.

viser has no hook for them. It starts its server with `websockets.asyncio.server.serve`, which takes a function that
checks requests, and a class that receives messages: they are passed while viser starts. That they are in effect is
verified before the server is used.
"""

import asyncio
import contextlib
import importlib.metadata
import io
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from unrender.errors import InputError
from unrender.viewer.access import FORBIDDEN, HOST_HEADER, NOT_FOUND, OK, SEE_OTHER, Access, Decision
from unrender.viewer.client_messages import MAX_BYTES, Pacer, is_expected

if TYPE_CHECKING:
    import viser
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

log = logging.getLogger("unrender")
MAX_PAGES = 32
"""Pages that are open at the same time, at most."""
POLICY_VIOLATION = 1008
CHECK_SECONDS = 30.0
"""Time within which a server has to answer when it starts."""
STATUS = {FORBIDDEN: "Forbidden", SEE_OTHER: "See Other", 503: "Service Unavailable"}
_starting = threading.Lock()
"""One server starts at a time: what is passed to it is set in a module of viser."""


def start_guarded_server(host: str, port: int, access: Access, label: str) -> "viser.ViserServer":
    """Start a server of viser that serves only what `access` allows; InputError if it does not hold to it."""
    import viser

    guard = _Guard(access, f"viser-v{viser.__version__}")
    with _starting, contextlib.redirect_stdout(io.StringIO()), guard.passed_to_viser():  # viser prints
        server = viser.ViserServer(host, port, label=label, verbose=False)
    if not guard.was_used or not _refuses_others(host, server.get_port()):
        with contextlib.redirect_stdout(io.StringIO()):
            server.stop()
        raise InputError(
            f"the viewer does not start: viser {importlib.metadata.version('viser')} does not let it check who connects"
            "; install a version that does: pip install viser==1.1.1"
        )
    return server


class _Guard:
    """What is passed to viser's server."""

    def __init__(self, access: Access, subprotocol: str) -> None:
        self.access, self._subprotocol = access, subprotocol
        self.was_used = False
        self._open: set[object] = set()

    @contextlib.contextmanager
    def passed_to_viser(self) -> Iterator[None]:
        """Replace `websockets.asyncio.server.serve` as a module of viser sees it, and nobody else."""
        from viser.infra import _infra

        original = getattr(_infra, "websockets", None)
        if original is None:
            yield
            return
        vars(_infra)["websockets"] = _Replaced(original, self._serve)
        try:
            yield
        finally:
            vars(_infra)["websockets"] = original

    def _serve(
        self, handler: Callable[..., Any], *where: Any, process_request: Any = None, **options: Any
    ) -> Any:
        """Start a server as viser does, with checks."""
        from websockets.asyncio.server import serve

        self.was_used = True
        asyncio.get_running_loop().set_exception_handler(_log_quietly)
        options |= {"max_size": MAX_BYTES, "create_connection": _connection_type(Pacer())}

        def check(connection: "ServerConnection", request: "Request") -> "Response | None":
            return self._answer(connection, request, process_request)

        async def handle(connection: "ServerConnection") -> None:
            self._open.add(connection)
            try:
                await handler(connection)
            finally:
                self._open.discard(connection)

        return serve(handle, *where, process_request=check, **options)

    def _answer(
        self, connection: "ServerConnection", request: "Request", serve_file: Any
    ) -> "Response | None":
        """Answer a request, or return None to open a websocket."""
        decision = self.access.decide(request.path, request.headers)
        opens_websocket = bool(request.headers.get_all("Upgrade"))
        if opens_websocket and decision.status in (OK, SEE_OTHER):
            if request.headers.get_all("Sec-WebSocket-Protocol") != [self._subprotocol]:
                decision = Decision(FORBIDDEN, reason="reload the page: it was opened with another version")
            elif len(self._open) >= MAX_PAGES:
                decision = Decision(503, reason=f"{MAX_PAGES} pages are open already")
            else:
                return None
        if decision.status != OK:
            response = connection.respond(decision.status, f"{decision.reason}\n")
        else:
            request.path = decision.path
            try:
                response = serve_file(connection, request)
            except (OSError, ValueError):  # names that no file system takes: too long, with null characters
                response = connection.respond(NOT_FOUND, "there is no such file\n")
        if decision.status == SEE_OTHER:
            response.headers["Location"] = decision.path
        for name, value in _protections(request.headers.get_all("Host")).items():
            response.headers[name] = value
        return response


class _Replaced(SimpleNamespace):
    """The package websockets with another `asyncio.server.serve`."""

    def __init__(self, original: Any, serve: Any) -> None:
        server = SimpleNamespace(**vars(original.asyncio.server) | {"serve": serve})
        super().__init__(**vars(original) | {"asyncio": SimpleNamespace(server=server)})


def _connection_type(pacer: Pacer) -> type["ServerConnection"]:
    """Return a class of connections on which only expected messages arrive, at a limited rate."""
    from websockets.asyncio.server import ServerConnection

    class PageConnection(ServerConnection):
        async def recv(self, decode: bool | None = None) -> Any:
            while True:
                await pacer.wait()
                data = await super().recv(decode)
                try:
                    if not isinstance(data, bytes):
                        raise ValueError("not a message: text")
                    if is_expected(data):
                        return data
                except ValueError as error:
                    log.debug("viewer: a page was disconnected: %s", error)
                    await self.close(POLICY_VIOLATION)

    return PageConnection


def _protections(hosts: list[str]) -> dict[str, str]:
    """Return headers with which browsers keep other pages, and what they inject, away from the page."""
    named = [
        host for host in hosts[:1] if HOST_HEADER.fullmatch(host) and "[" not in host
    ]  # browsers take no [::1] here
    sources = " ".join(f"{scheme}://{host}" for host in named for scheme in ("ws", "wss"))
    return {
        "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
        f"connect-src 'self' data: blob: {sources}; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
        "object-src 'none'",
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


def _refuses_others(host: str, port: int) -> bool:
    """Return whether a running server refuses requests for another name, of pages and of websockets."""
    name = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))
    upgrade = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
        + "A" * 22
        + "==\r\n"
    )
    for more in ("", upgrade):
        try:
            with socket.create_connection((name, port), CHECK_SECONDS) as connection:
                connection.sendall(f"GET / HTTP/1.1\r\nHost: other.invalid\r\n{more}\r\n".encode())
                status = connection.makefile("rb").readline().split()
        except OSError:
            return False
        if status[1:2] != [str(FORBIDDEN).encode()]:
            return False
    return True


def _log_quietly(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Keep errors that messages of a page cause off the terminal."""
    log.debug("viewer: %s: %r", context.get("message"), context.get("exception"))
