"""The page to which Stripe redirects a user after the authorization of the Stripe App. It shows the result."""

import logging
from collections.abc import Callable
from html import escape
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from orchestration.accounts.oauth_flow import AppAuthorization, NotConnected, connect_app
from orchestration.accounts.registry import Integration, IntegrationError
from orchestration.stripe_api import StripeApiError

logger = logging.getLogger(__name__)

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Recoup: {title}</title>
<h1>{title}</h1>
<p>{text}</p>
</html>
"""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""The page's address contains a code and a state. These headers keep it out of caches and out of `Referer`."""


def callback_page(authorization: AppAuthorization) -> Callable[[Request], Response]:
    """Create the handler for `CALLBACK_PATH`. It waits for Stripe, so Starlette runs it in a thread."""

    def page(request: Request) -> Response:
        if request.method == "HEAD":  # link previews send HEAD; they must not consume the one-time link
            return Response(headers=_HEADERS)
        try:
            integration = connect_app(authorization, request.query_params)
        except (NotConnected, IntegrationError) as error:
            return _not_connected_page(str(error), 400)
        except StripeApiError as error:
            return _not_connected_page(str(error), 502)
        except OSError as error:
            return _not_connected_page(
                f"The tokens could not be stored ({error.strerror}). Fix that, then create another link.", 500
            )
        return _connected_page(integration)

    return page


def _connected_page(integration: Integration) -> Response:
    mode = "live" if integration.livemode else "test"
    logger.info("Integration %s is connected: %s in %s mode.", integration.name, integration.account_id, mode)
    text = (
        f"Integration {integration.name} reads {integration.account_id} in {mode} mode. You can close this window. "
        f"On the machine that runs Recoup, the next step is: recoup sync {integration.name}"
    )
    return _page_response("connected", text, 200)


def _not_connected_page(text: str, status: int) -> Response:
    logger.warning("No account was connected by the Stripe App: %s", text)
    return _page_response("not connected", text, status)


def _page_response(title: str, text: str, status: int) -> Response:
    return HTMLResponse(_PAGE.format(title=title, text=escape(text)), status, _HEADERS)
