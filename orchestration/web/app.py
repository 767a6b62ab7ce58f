"""The web application that receives webhooks. It also serves the OAuth callback page of the Stripe App.

`recoup receive` runs it. Any ASGI server can run it, too: `uvicorn --factory orchestration.web.app:receiver`.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from starlette.applications import Starlette
from starlette.routing import Route

from orchestration.accounts.clients import StripeConnections
from orchestration.accounts.oauth_flow import CALLBACK_PATH
from orchestration.accounts.oauth_tokens import DEAUTHORIZED_EVENT, record_deauthorization
from orchestration.accounts.registry import Integrations
from orchestration.accounts.webhook_endpoints import WebhookEndpoints
from orchestration.base.files import make_new_files_private
from orchestration.config.settings import Settings
from orchestration.setup.connections import make_app_authorization
from orchestration.setup.registry import make_webhook_endpoints
from orchestration.web.oauth_callback import callback_page
from orchestration.webhooks.endpoint import WebhookEndpoint
from orchestration.webhooks.queue import Queue
from orchestration.webhooks.receiver import create_receiver

_SECRET_IN_PATH: Final = re.compile(rf"(/webhooks/\w+/|{CALLBACK_PATH}\?)[^\s?]+")

_REFRESH_SECONDS: Final = 1.0
"""Time after which a changed token or secret takes effect."""


def receiver(settings: Settings | None = None) -> Starlette:
    """Create the application for all integrations. Settings are read from the environment by default."""
    if settings is None:  # an ASGI server calls this, not `recoup receive`
        make_new_files_private()
        settings = Settings()
    logging.getLogger("uvicorn.access").addFilter(_mask_secrets)
    authorization, endpoints = make_app_authorization(settings), make_webhook_endpoints(settings)
    endpoints.files().enable()
    return create_receiver(
        Queue(settings.queue_url),
        _cached_endpoints(endpoints, authorization.connections.integrations),
        stored_types=settings.webhook_events,
        bus_key=settings.recoup_event_bus_key,
        watchers={DEAUTHORIZED_EVENT: partial(_record_deauthorization, authorization.connections)},
        routes=[Route(CALLBACK_PATH, callback_page(authorization), methods=["GET"])],
    )


def _mask_secrets(record: logging.LogRecord) -> bool:
    """Mask the tokens of endpoints and Stripe's OAuth codes in the addresses that uvicorn's access log contains."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            _SECRET_IN_PATH.sub(r"\1…", each) if isinstance(each, str) else each for each in record.args
        )
    return True


def _record_deauthorization(connections: StripeConnections, event: Mapping[str, Any]) -> None:
    """Record that an account has uninstalled the app, even if it was connected after this process started."""
    record_deauthorization(connections.integrations.reload(), connections.app, event)


def _cached_endpoints(
    endpoints: WebhookEndpoints, integrations: Integrations
) -> Callable[[], Sequence[WebhookEndpoint]]:
    """Return a function that returns all enabled endpoints, and reads them again after `_REFRESH_SECONDS`."""
    read_at = float("-inf")
    cached: Sequence[WebhookEndpoint] = ()

    def enabled_endpoints() -> Sequence[WebhookEndpoint]:
        nonlocal read_at, cached
        if time.monotonic() - read_at > _REFRESH_SECONDS:
            read_at, cached = time.monotonic(), endpoints.enabled(integrations.reload())
        return cached

    return enabled_endpoints
