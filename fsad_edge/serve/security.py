"""The guard of the service: token, Host and Origin checks, and security headers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Iterable
from urllib.parse import urlsplit, urlunsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fsad_edge.serve.client import client_of
from fsad_edge.serve.options import ANY_HOST
from fsad_edge.serve.problems import ProblemError
from fsad_edge.serve.request_body import Holder
from fsad_edge.serve.root_path import route_path, with_root_path
from fsad_edge.serve.service import Service

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

#: Most bytes of the part of an address behind the question mark.
MAX_QUERY = 4096

METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})


#: Paths besides the page's files that need no token.
OPEN_PATHS = frozenset({"", "/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})


def needs_token(path: str) -> bool:
    """Whether a path of a request needs the token: the page's own files hold no results."""
    return path not in OPEN_PATHS and not path.startswith("/page/")


class GuardedApp:
    """An ASGI application behind its guard: token, host names, origins and security headers.

    Args:
        app: the application with the routes.
        service: what the routes work on; for its state and its metrics.
        token: requests must carry it, except those for open paths; None asks for no token.
        allowed_hosts: names by which requests may call the service, or ``ANY_HOST``. A foreign
            page whose name is made to resolve to 127.0.0.1 uses its own name.
        root_path: the path below which a proxy publishes the service, such as ``/inspection``;
            empty for the root.

    Attributes:
        service: see above.
    """

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        token: str | None,
        allowed_hosts: Iterable[str],
        root_path: str = "",
    ) -> None:
        self.service = service
        self._app = app
        self._digest = None if token is None else _digest(token)
        hosts = frozenset(map(str.lower, allowed_hosts))
        self._hosts = None if ANY_HOST in hosts else hosts
        self._root_path = root_path

    @property
    def has_token(self) -> bool:
        """Whether requests need a token."""
        return self._digest is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope, method = with_root_path(scope, self._root_path), scope["method"]
        scope["holder"] = Holder(client_of(str((scope.get("client") or [""])[0])))
        if method == "HEAD":
            scope["method"] = "GET"  # the routes answer; the body is left out below

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                _adapt(headers)
                if self.service.draining:
                    headers["connection"] = "close"
                # The route, not the path: requests for unknown paths make no new series.
                route = getattr(scope.get("route"), "path", "none")
                label = method if method in METHODS else "other"
                self.service.metrics.requests.labels(route, label, str(message["status"])).inc()
            elif method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        headers = Headers(scope=scope)
        problem = self._refusal(scope, headers)
        if problem is not None:
            await problem.response(route_path(scope))(scope, receive, guarded_send)
            return
        if not route_path(scope):  # the page's addresses begin after the slash
            location = {"Location": scope["path"] + "/"}
            await Response(status_code=307, headers=location)(scope, receive, guarded_send)
            return
        await self._run(scope, receive, guarded_send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self.service.draining:
                raise  # else the service has ended before this request has
        finally:
            self.service.bodies.free(scope["holder"])

    def _refusal(self, scope: Scope, headers: Headers) -> ProblemError | None:
        host = headers.get("host", "")
        if self._hosts is not None and _host_name(host) not in self._hosts:
            return ProblemError(
                421, f"the host name {host[:100]!r} is not allowed here: see --allow-host.",
            )  # fmt: skip
        if scope["method"] not in {"GET", "HEAD"} and not _same_origin(headers, host):
            return ProblemError(403, "a page of another origin may not send this request.")
        if len(scope["query_string"]) > MAX_QUERY:
            return ProblemError(
                414, f"the query of the address has more than {MAX_QUERY} characters."
            )
        scope["authorized"] = self._is_authorized(headers)
        if not scope["authorized"] and needs_token(route_path(scope)):
            return ProblemError(
                401,
                "send the service's token:  Authorization: Bearer TOKEN.",
                {"WWW-Authenticate": "Bearer"},
            )
        return None

    def _is_authorized(self, headers: Headers) -> bool:
        if self._digest is None:
            return True
        kind, _, token = headers.get("authorization", "").partition(" ")
        # Digests are compared, so that the time does not reveal the token's length either.
        return kind.lower() == "bearer" and hmac.compare_digest(
            _digest(token.strip()), self._digest
        )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _host_name(host: str) -> str:
    """The name in a Host header without the port."""
    if host.startswith("["):
        return host.partition("]")[0].lstrip("[").lower()
    return host.partition(":")[0].lower()


def _adapt(headers: MutableHeaders) -> None:
    """Make the headers of an answer true behind a proxy, and for HEAD."""
    location = headers.get("location")
    if location is not None:  # the proxy may have another scheme, name and port
        headers["location"] = urlunsplit(("", "", *urlsplit(location)[2:]))
    allowed = headers.get("allow", "").split(", ")
    if "GET" in allowed and "HEAD" not in allowed:
        headers["allow"] = ", ".join([*allowed, "HEAD"])


def _same_origin(headers: Headers, host: str) -> bool:
    """Whether a browser sent the request for a page of this service, or no browser sent it."""
    site = headers.get("sec-fetch-site")
    if site == "same-origin":  # no page can forge this, and a proxy may have changed the host
        return True
    if site not in {None, "none"}:
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
