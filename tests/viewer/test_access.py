"""Who may open the viewer: names, origins and tokens, as rules and over real sockets on loopback."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from viser.infra import WebsockServer, _infra
from websockets import Headers
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from unrender import InputError
from unrender.viewer import guarded_server
from unrender.viewer.access import Access, is_loopback
from unrender.viewer.window import Window

LOCAL, PUBLIC = Access("127.0.0.1", None), Access("0.0.0.0", "secret-token")


def status(access: Access, target: str = "/", host: str | None = "localhost:8080", **headers: str) -> int:
    pairs = [] if host is None else [("Host", host)]
    return access.decide(
        target, Headers([*pairs, *((k.replace("_", "-"), v) for k, v in headers.items())])
    ).status


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:1", "LocalHost.:8080", "127.0.0.1:8080", "127.8.9.1", "[::1]:8080",
        "[::ffff:127.0.0.1]",
    ],
)  # fmt: skip
def test_names_of_loopback(host):
    assert status(LOCAL, host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        None, "", "evil.com", "evil.com:8080", "localhost.evil.com", "127.0.0.1.evil.com", "192.168.0.7:8080",
        "0.0.0.0",
        "2130706433", "0x7f.1", "[::2]", "localhost@evil.com", "localhost:80:80", "localhost/", " localhost",
        "[localhost",
    ],
)  # fmt: skip
def test_other_names(host):
    assert status(LOCAL, host=host) == 403


def test_the_name_to_listen_on_is_allowed():
    assert status(Access("my.alias", None), host="my.alias:8080") == 200
    assert status(Access("lab.example.com", "t"), "/t/", host="lab.example.com") == 200
    assert status(PUBLIC, "/secret-token/", host="lab.example.com") == 403
    assert status(PUBLIC, "/secret-token/", host=f"{socket.gethostname()}:8080") == 200
    assert status(PUBLIC, "/secret-token/", host="192.168.0.7:8080") == 200
    assert status(PUBLIC, "/secret-token/", host="[fe80::1]:8080") == 200


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://localhost:8080", 200),
        ("https://localhost:8080", 200),
        ("http://localhost:3000", 403),
        ("http://localhost", 403),
        ("http://evil.com", 403),
        ("http://localhost:8080.evil.com", 403),
        ("ftp://localhost:8080", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_origins(origin, expected):
    assert status(LOCAL, Origin=origin) == expected
    assert status(PUBLIC, "/secret-token/", Origin=origin) == expected


def test_repeated_headers():
    both = Headers([("Host", "localhost"), ("Host", "evil.com")])
    assert LOCAL.decide("/", both).status == 403
    twice = Headers([("Host", "a"), ("Origin", "http://a"), ("Origin", "http://a")])
    assert Access("a", None).decide("/", twice).status == 403


def test_what_other_pages_embed():
    assert status(LOCAL, Sec_Fetch_Site="none", Sec_Fetch_Mode="navigate") == 200
    assert status(LOCAL, Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="websocket") == 200
    assert (
        status(LOCAL, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document")
        == 200
    )
    assert (
        status(LOCAL, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="iframe") == 403
    )
    assert status(LOCAL, Sec_Fetch_Site="same-site", Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="script") == 403


def test_options_in_the_address():
    assert status(LOCAL, "/?websocket=ws://evil.com") == 403
    assert status(LOCAL, "/?token=x") == 200
    assert status(LOCAL, "/?websocket=ws://localhost:8080") == 200
    assert status(PUBLIC, "/secret-token/?websocket=ws://localhost:8080/secret-token") == 200
    assert status(PUBLIC, "/secret-token/?websocket=ws://localhost:8080/secret-token@evil.com") == 403
    assert status(PUBLIC, "/secret-token/?websocket=ws://localhost:80800/secret-token") == 403
    assert status(PUBLIC, "/?websocket=ws://localhost:8080/secret-token") == 403
    assert status(LOCAL, "/?playbackPath=http://evil.com") == 403
    assert status(PUBLIC, "/?token=secret-token&websocket=ws://evil.com") == 403


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/?token=secret-token", 303),
        ("/secret-token/", 200),
        ("/secret-token", 200),
        ("/secret-token/assets/a.js", 200),
        ("/", 403),
        ("/?token=", 403),
        ("/?token=secret-toke", 403),
        ("/?token=secret-token&token=x", 403),
        ("/?token=%C3%A9", 403),
        ("/secret-tokens/", 403),
        ("//secret-token/", 403),
        ("/index.html", 403),
    ],
)
def test_tokens(target, expected):
    assert status(PUBLIC, target) == expected


def test_paths_after_the_token():
    headers = Headers([("Host", "localhost")])
    assert PUBLIC.decide("/secret-token/assets/a.js", headers).path == "/assets/a.js"
    assert PUBLIC.decide("/secret-token", headers).path == "/"
    assert PUBLIC.decide("/?token=secret-token", headers).path == "/secret-token/"


def test_where_a_token_is_needed():
    assert [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "[::1]", "127.3.2.1")] == [
        True
    ] * 5
    assert [is_loopback(host) for host in ("", "0.0.0.0", "::", "192.0.2.1", "no such host")] == [False] * 5
    tokens = {Access.for_host("0.0.0.0").token for _ in range(3)}
    assert len(tokens) == 3
    assert min(map(len, tokens)) >= 32
    assert Access("::1", None).url(80) == "http://[::1]:80"
    assert Access("192.0.2.1", "t").url(80) == "http://192.0.2.1:80/?token=t"


@pytest.fixture(params=["127.0.0.1", "0.0.0.0"])
def window(request, tmp_path) -> Iterator[Window]:
    with Window(host=request.param, port=0, path_file=tmp_path / "path.json") as window:
        yield window


def port_of(window: Window) -> int:
    return window._server.get_port()


def ask(window: Window, target: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Send a request as bytes, so that nothing is added to it."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", port_of(window)), 60) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode())
        with connection.makefile("rb") as file:
            answer = file.read()
    return int(answer.split()[1]), answer


def test_pages_over_sockets(window):
    token = window._access.token
    home, ours = "/" if token is None else f"/{token}/", f"localhost:{port_of(window)}"
    code, answer = ask(window, home, {"Host": ours})
    assert code == 200
    assert b"<!doctype html>" in answer
    for protection in (b"frame-ancestors 'none'", b"X-Frame-Options: DENY", b"Referrer-Policy: no-referrer"):
        assert protection in answer
    for headers in (
        {"Host": f"evil.com:{port_of(window)}"},
        {"Host": ours, "Origin": "http://evil.com"},
        {"Host": ours, "Origin": "null"},
        {},
    ):
        code, answer = ask(window, home, headers)
        assert code in (400, 403)
        assert b"<!doctype" not in answer
    for name in ("x" * 5000, "%00", "x" * 300, "%2e%2e/%2e%2e/etc/passwd"):
        code, answer = ask(window, home + name, {"Host": ours})
        assert 400 <= code < 500
        assert b"X-Frame-Options: DENY" in answer
    if token is not None:
        assert ask(window, "/", {"Host": ours})[0] == 403
        code, answer = ask(window, f"/?token={token}", {"Host": ours})
        assert code == 303
        assert f"Location: /{token}/\r\n".encode() in answer


def open_websocket(
    window: Window, path: str, origin: str | None = None, subprotocol: str | None = None, **headers: str
):
    import viser

    protocol = subprotocol or f"viser-v{viser.__version__}"
    url = f"ws://localhost:{port_of(window)}{path}"
    return connect(
        url,
        origin=origin,
        subprotocols=[protocol],
        additional_headers=headers,
        max_size=None,
        open_timeout=60,
    )


def test_websockets(window):
    token = window._access.token
    home, ours = "/" if token is None else f"/{token}", f"http://localhost:{port_of(window)}"
    for origin in (None, ours):
        with open_websocket(window, home, origin) as page:
            assert isinstance(page.recv(timeout=60), bytes)
    refused = [
        {"origin": "http://evil.com"},
        {"origin": "null"},
        {"origin": ours + "0"},
        {"subprotocol": "viser-v0"},
    ]
    for options in refused:
        with pytest.raises(InvalidStatus, match="403"):
            open_websocket(window, home, **options)
    if token is not None:
        for path in ("/", "/x", f"/{token}x", "/?token=x"):
            with pytest.raises(InvalidStatus, match="403"):
                open_websocket(window, path)
        with open_websocket(window, f"/?token={token}") as page:
            assert isinstance(page.recv(timeout=60), bytes)


def test_no_more_pages_than_can_be_served(window, monkeypatch):
    monkeypatch.setattr(guarded_server, "MAX_PAGES", 0)
    token = window._access.token
    with pytest.raises(InvalidStatus, match="503"):
        open_websocket(window, "/" if token is None else f"/{token}")


def _serve_elsewhere(monkeypatch) -> None:
    """Let viser find `serve` in another place than today."""
    import websockets.asyncio.server

    start = WebsockServer._background_worker

    def worker(self, ready):
        _infra.websockets = websockets
        start(self, ready)

    monkeypatch.setattr(WebsockServer, "_background_worker", worker)


def _serve_without_checks(monkeypatch) -> None:
    """Let `serve` take no notice of what it is given."""
    allowed = SimpleNamespace(status=200, path="/", reason="")
    monkeypatch.setattr(Access, "decide", lambda *_: allowed)


@pytest.mark.parametrize("change", [_serve_elsewhere, _serve_without_checks])
def test_no_viewer_without_checks(monkeypatch, change):
    change(monkeypatch)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(
        InputError, match=r"the viewer does not start: viser .* who connects; .* pip install viser=="
    ):
        Window(port=port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 60).close()
