"""Who may ask what: token, Host and Origin, and the headers that browsers keep to."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fsad_edge.serve.problems import ProblemError

#: Shorter tokens can be guessed.
TOKEN_LENGTH = 16

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware that lets through what is allowed.

    Args:
        app: what is guarded.
        token: needed for everything but what ``is_open`` names; None needs none.
        hosts: names a request may call this service by; None takes any. A page of a stranger's
            whose name is made to resolve to 127.0.0.1 calls it by the stranger's name.
        is_open: whether a path needs no token.
        closing: whether connections shall end with their answer.
        answered: told the route, the method and the status of each answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str | None,
        hosts: frozenset[str] | None,
        is_open: Callable[[str], bool],
        closing: Callable[[], bool],
        answered: Callable[[str, str, int], None],
    ) -> None:
        self._app = app
        self._digest = None if token is None else _digest(token)
        self._hosts = hosts
        self._is_open = is_open
        self._closing = closing
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                if self._closing():
                    headers["connection"] = "close"
                # The route, not the path: what strangers ask for makes no new series.
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if scope["method"] in METHODS else "other"
                self._answered(route, method, message["status"])
            await send(message)

        headers = Headers(scope=scope)
        problem = self._refusal(scope, headers)
        if problem is not None:
            await problem.response(scope["path"])(scope, receive, guarded_send)
            return
        await self._app(scope, receive, guarded_send)

    def _refusal(self, scope: Scope, headers: Headers) -> ProblemError | None:
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return ProblemError(
                421, f"this service is not called {host[:100]!r}: see --allow-host.",
            )  # fmt: skip
        if scope["method"] not in {"GET", "HEAD"} and not _same_origin(headers, host):
            return ProblemError(403, "a page of another origin may not ask for this.")
        scope["authorized"] = self._knows_token(headers)
        if not scope["authorized"] and not self._is_open(scope["path"]):
            return ProblemError(
                401,
                "send the service's token:  Authorization: Bearer TOKEN.",
                {"WWW-Authenticate": "Bearer"},
            )
        return None

    def _knows_token(self, headers: Headers) -> bool:
        if self._digest is None:
            return True
        kind, _, token = headers.get("authorization", "").partition(" ")
        # Digests, so that the time tells nothing of the length either.
        return kind.lower() == "bearer" and hmac.compare_digest(
            _digest(token.strip()), self._digest
        )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    if host.startswith("["):
        return host.partition("]")[0].lstrip("[").lower()
    return host.partition(":")[0].lower()


def _same_origin(headers: Headers, host: str) -> bool:
    """False for what a browser sends for a page that did not come from here."""
    if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
