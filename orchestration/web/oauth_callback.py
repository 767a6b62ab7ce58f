"""The page to which Stripe sends back whoever was asked to authorize the Stripe App: done, or what went wrong."""

import logging
from collections.abc import Callable
from html import escape
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from orchestration.accounts.oauth_flow import NotConnected, connect_app
from orchestration.accounts.registry import Integration, IntegrationError
from orchestration.config.settings import Settings
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
"""The page's address has a code and a state in it: nobody keeps it, and no link or picture gives it away."""


def callback_page(settings: Settings) -> Callable[[Request], Response]:
    """What answers at `CALLBACK_PATH`. Stripe's answers are waited for, so it runs in a thread."""

    def page(request: Request) -> Response:
        if request.method == "HEAD":  # who looks at an address before it opens it must not use up the link
            return Response(headers=_HEADERS)
        try:
            connected = connect_app(settings, request.query_params)
        except (NotConnected, IntegrationError) as error:
            return _not_connected(str(error), 400)
        except StripeApiError as error:
            return _not_connected(str(error), 502)
        except OSError as error:
            return _not_connected(f"The tokens could not be stored ({error.strerror}). Ask for another link then.", 500)
        return _connected(connected)

    return page


def _connected(integration: Integration) -> Response:
    mode = "live" if integration.livemode else "test"
    logger.info("Integration %s is connected: %s in %s mode.", integration.name, integration.account_id, mode)
    text = (
        f"Integration {integration.name} reads {integration.account_id} in {mode} mode. You can close this window. "
        f"Whoever runs Recoup reads it now by: recoup sync {integration.name}"
    )
    return _answer("connected", text, 200)


def _not_connected(text: str, status: int) -> Response:
    logger.warning("No account was connected by the Stripe App: %s", text)
    return _answer("not connected", text, status)


def _answer(title: str, text: str, status: int) -> Response:
    return HTMLResponse(_PAGE.format(title=title, text=escape(text)), status, _HEADERS)
