"""The guard in front of Dagster's UI: it refuses requests from other sites' pages.

Dagster's UI has no login: whoever reaches it may start runs. It listens on this machine only, but any page in a browser
on this machine can send requests there.
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
"""What keeps other sites from showing the UI in a frame and having it clicked on unseen."""


class UiGuard:
    """Answer 403 to requests that are for another host, or come from another site's page.

    A request without `Origin` and `Sec-Fetch-Site`, as scripts send it, comes from no page and passes.

    Args:
        hosts: Hosts of the UI behind a proxy, as in the browser's address: `recoup.example.com`, with a port if needed.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app, self._hosts = app, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it. Websockets are guarded, too."""
        refusal = self._refusal(HTTPConnection(scope)) if scope["type"] in ("http", "websocket") else None
        if refusal is not None:
            await _refuse(f"Refused: {refusal}\n", scope, receive, send)
            return

        async def send_unframed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.append(name, value)  # Dagster's own policy holds as well
            await send(message)

        await self._app(scope, receive, send_unframed)

    def _refusal(self, request: HTTPConnection) -> str | None:
        """Return why the request is refused and what to do, or None."""
        hosts = [host.lower() for host in request.headers.getlist("host")]
        if len(hosts) != 1 or hosts[0] not in self._hosts | _own_hosts(request.scope):
            named = _shown(", ".join(hosts)) or "no host"
            return f"the UI is not known as {named}. If that is its own address, add it to RECOUP_UI_HOSTS."
        origins = {origin.lower() for origin in request.headers.getlist("origin")}
        if origins - {f"{scheme}://{hosts[0]}" for scheme in ("http", "https")}:
            return (
                f"a page of {_shown(', '.join(sorted(origins)))} sent this to {_shown(hosts[0])}. If both are the UI, "
                "let the proxy pass on the header Host, and add that host to RECOUP_UI_HOSTS."
            )
        if _is_graphql(request) and _is_referred_by_another_site(request.headers, hosts[0]):
            return "a page of another site sent this. Open the UI's own address instead."
        if _is_of_another_site(request.headers) and not _opens_a_page(request):
            return "a page of another site sent this. Open the UI's own address instead."
        if _hides_its_site(request):
            return "the browser does not say which page sent this. Send GraphQL by POST."
        return None


def _own_hosts(scope: Scope) -> frozenset[str]:
    """Return the names of this machine's loopback interface, with the port on which the request came in."""
    port = (scope.get("server") or (None, None))[1]
    named = {f"{name}:{port}" for name in _LOOPBACK_NAMES}
    return frozenset(named | set(_LOOPBACK_NAMES) if port == _HTTP_PORT else named)


def _is_of_another_site(headers: Headers) -> bool:
    """Return whether a page of another origin caused the request. Another port of this machine is another origin."""
    return headers.get("sec-fetch-site", "none") not in ("same-origin", "none")


def _is_referred_by_another_site(headers: Headers, host: str) -> bool:
    """Return whether `Referer`, which old browsers send in place of `Sec-Fetch-Site`, names another origin."""
    pages = [page.lower() for page in headers.getlist("referer")]
    return any(not page.startswith((f"http://{host}/", f"https://{host}/")) for page in pages if page)


def _opens_a_page(request: HTTPConnection) -> bool:
    """Return whether a link to a page of the UI was followed, in an e-mail for example."""
    return (
        request.scope.get("method") in ("GET", "HEAD")
        and request.headers.get("sec-fetch-mode") == "navigate"
        and request.headers.get("sec-fetch-dest") == "document"
        and not _is_graphql(request)
    )


def _hides_its_site(request: HTTPConnection) -> bool:
    """Return whether a browser runs GraphQL by GET without saying from where.

    Browsers send no `Sec-Fetch-Site` to plain http under another name than localhost, old ones never, and no `Origin`
    when a page includes an address as a picture. The UI itself uses POST.
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


def _shown(text: str) -> str:
    return text[:_SHOWN_CHARACTERS]


async def _refuse(text: str, scope: Scope, receive: Receive, send: Send) -> None:
    response = PlainTextResponse(text, 403, {"X-Content-Type-Options": "nosniff", **_HEADERS})
    if scope["type"] == "http":
        await response(scope, receive, send)
    elif "websocket.http.response" in scope.get("extensions", {}):
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await send({"type": "websocket.close"})  # the server answers 403
