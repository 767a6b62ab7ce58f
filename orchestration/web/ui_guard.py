"""A guard in front of Dagster's UI that refuses requests from the pages of other sites.

Dagster's UI has no login: anyone who can reach it can start runs. It listens on this machine only, but any page that is
open in a browser on this machine can send requests to it.
"""

from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
_HTTP_PORT: Final = 80
_SHOWN_CHARACTERS: Final = 100
_HEADERS: Final = {"X-Frame-Options": "SAMEORIGIN", "Content-Security-Policy": "frame-ancestors 'self'"}
"""Headers that keep other sites from showing the UI in a frame (clickjacking)."""


class UiGuard:
    """ASGI middleware that answers 403 to requests for another host or from the page of another site.

    A request without `Origin` and `Sec-Fetch-Site` does not come from a page, but from a script. It passes.

    Args:
        app: The application of Dagster's UI.
        hosts: Hosts of the UI behind a proxy, as in the browser's address bar: `recoup.example.com`, or with a port.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app, self._hosts = app, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the application, or refuse it. WebSockets are guarded, too."""
        refusal = self._refusal(HTTPConnection(scope)) if scope["type"] in ("http", "websocket") else None
        if refusal is not None:
            await _refuse(f"Refused: {refusal}\n", scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.append(name, value)  # appended, so that Dagster's own policy still applies
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refusal(self, request: HTTPConnection) -> str | None:
        """Return why a request is refused and what to do, or None if it passes."""
        hosts = [host.lower() for host in request.headers.getlist("host")]
        if len(hosts) != 1 or hosts[0] not in self._hosts | _loopback_hosts(request.scope):
            host = _truncate(", ".join(hosts)) or "(none)"
            return f"the UI does not serve the host {host}. If that is its own address, add it to RECOUP_UI_HOSTS."
        origins = {origin.lower() for origin in request.headers.getlist("origin")}
        if origins - {f"{scheme}://{hosts[0]}" for scheme in ("http", "https")}:
            return (
                f"a page of {_truncate(', '.join(sorted(origins)))} sent this to {_truncate(hosts[0])}. If both are "
                "the UI, let the proxy pass on the Host header, and add that host to RECOUP_UI_HOSTS."
            )
        if _is_graphql(request) and _has_foreign_referer(request.headers, hosts[0]):
            return "a page of another site sent this. Open the UI's own address instead."
        if _is_cross_site(request.headers) and not _is_page_navigation(request):
            return "a page of another site sent this. Open the UI's own address instead."
        if _is_anonymous_graphql_get(request):
            return "the browser does not say which page sent this. Send GraphQL by POST."
        return None


def _loopback_hosts(scope: Scope) -> frozenset[str]:
    """Return the names of this machine's loopback interface with the port on which the request arrived."""
    port = (scope.get("server") or (None, None))[1]
    hosts = {f"{name}:{port}" for name in _LOOPBACK_NAMES}
    return frozenset(hosts | set(_LOOPBACK_NAMES) if port == _HTTP_PORT else hosts)


def _is_cross_site(headers: Headers) -> bool:
    """Return whether a page of another origin sent the request. Another port of this machine is another origin."""
    return headers.get("sec-fetch-site", "none") not in ("same-origin", "none")


def _has_foreign_referer(headers: Headers, host: str) -> bool:
    """Return whether `Referer` names another origin. Old browsers send it instead of `Sec-Fetch-Site`."""
    pages = [page.lower() for page in headers.getlist("referer")]
    return any(not page.startswith((f"http://{host}/", f"https://{host}/")) for page in pages if page)


def _is_page_navigation(request: HTTPConnection) -> bool:
    """Return whether the user opened a page of the UI with a link, for example from an email."""
    return (
        request.scope.get("method") in ("GET", "HEAD")
        and request.headers.get("sec-fetch-mode") == "navigate"
        and request.headers.get("sec-fetch-dest") == "document"
        and not _is_graphql(request)
    )


def _is_anonymous_graphql_get(request: HTTPConnection) -> bool:
    """Return whether a browser sends a GraphQL query by GET and does not say which page it comes from.

    Browsers send no `Sec-Fetch-Site` over plain HTTP to a name other than localhost, and old browsers never send it.
    They send no `Origin` when a page embeds an address as an image. The UI itself uses POST.
    """
    return (
        request.scope.get("method") == "GET"
        and _is_graphql(request)
        and "query" in request.query_params
        and "sec-fetch-site" not in request.headers
        and request.headers.get("user-agent", "").startswith("Mozilla/")
    )


def _is_graphql(request: HTTPConnection) -> bool:
    return str(request.scope["path"]).rstrip("/") == "/graphql"


def _truncate(text: str) -> str:
    return text[:_SHOWN_CHARACTERS]


async def _refuse(text: str, scope: Scope, receive: Receive, send: Send) -> None:
    response = PlainTextResponse(text, 403, {"X-Content-Type-Options": "nosniff", **_HEADERS})
    if scope["type"] == "http":
        await response(scope, receive, send)
    elif "websocket.http.response" in scope.get("extensions", {}):
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await send({"type": "websocket.close"})  # the server answers 403
