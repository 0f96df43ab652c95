"""Let nobody in who does not know the token of the printed address.

The first request has the token in its address and gets a cookie; later ones have the cookie. A
program sends `Authorization: Bearer TOKEN`, or the token in the address of a feed. The name in
`Host` must be one of ours: otherwise a page of a stranger could reach this server by a name that
leads to 127.0.0.1.

Browsers send a cookie to every port of a host. Therefore its name has the port, and the token
cannot be computed from its value. Another user's server that gets it can open these pages, as
docs/use/security.md says.
"""

import hmac
import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FEEDS = ("/metrics", "/status.json", "/trace.json")  # programs read them, which follow no redirect with a cookie
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Middleware that passes on only requests with the token and with a known host name.

    `port` is that of this server. `names` are host names by which people reach it, besides those of
    this machine itself. `program` has printed the address with the token.
    """

    def __init__(
        self, app: ASGIApp, token: str, port: int, names: Iterable[str] = (), program: str = "termite-ctl web"
    ) -> None:
        self._app = app
        self._program = program
        self._token = token
        self._cookie_name = f"termite_{port}"
        self._cookie = bound_token(token, "cookie", port)
        self._names = {*LOCAL_NAMES, *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a stranger, or pass the request on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        answer = self._refusal(scope)
        if answer is not None:
            await answer(scope, receive, _with_headers(send))
            return
        await self._app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that is not passed on, or None."""
        headers = Headers(scope=scope)
        if _host_name(headers.get("host", "")) not in self._names:
            return PlainTextResponse(f"this name is not known here: see {self._program} -help\n", 421)
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if is_same(query.pop("token", [""])[-1], self._token):
            return None if scope["path"] in FEEDS else self._welcome(scope["path"], urlencode(query, doseq=True))
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and is_same(bearer.strip(), self._token):
            return None
        if is_same(_cookie(headers.get("cookie", ""), self._cookie_name), self._cookie):
            return None
        return PlainTextResponse(f"open the address that {self._program} has printed: it has a token\n", 403)

    def _welcome(self, path: str, query: str) -> Response:
        """Return the answer that gives a browser the cookie, and an address without the token."""
        here = "/" + path.lstrip("/\\")  # //evil.example would be an address elsewhere
        answer = RedirectResponse(quote(here) + (f"?{query}" if query else ""), 303)
        # With `strict`, a browser that comes from elsewhere would not send it on the redirect.
        answer.set_cookie(self._cookie_name, self._cookie, httponly=True, samesite="lax")
        return answer


def bound_token(token: str, purpose: str, port: int) -> str:
    """Return a token for one purpose and port, which does not tell the one that it is made of."""
    return hmac.digest(token.encode(), f"{purpose} {port}".encode(), "sha256").hex()


def is_same(given: str, wanted: str) -> bool:
    """Return True if both are equal. The time that this takes tells nothing about them."""
    return secrets.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _host_name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, text in HEADERS.items():
                headers[name] = text
        await send(message)

    return send_with_headers
