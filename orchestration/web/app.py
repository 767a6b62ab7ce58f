"""The web application that receives webhooks. It also serves the OAuth callback page of the Stripe App.

`recoup receive` runs it. Any ASGI server can run it, too: `uvicorn --factory orchestration.web.app:receiver`.
"""

import logging
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from starlette.applications import Starlette
from starlette.routing import Route

from orchestration.accounts.oauth_flow import CALLBACK_PATH
from orchestration.accounts.oauth_tokens import DEAUTHORIZED_EVENT, record_deauthorization
from orchestration.accounts.webhook_endpoints import WebhookFiles, webhook_endpoints
from orchestration.base.files import make_new_files_private
from orchestration.config.settings import Settings
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
    WebhookFiles(settings).enable()
    return create_receiver(
        Queue(settings.queue_url),
        _cached_endpoints(settings),
        stored_types=settings.webhook_events,
        bus_key=settings.recoup_event_bus_key,
        watchers={DEAUTHORIZED_EVENT: partial(record_deauthorization, settings)},
        routes=[Route(CALLBACK_PATH, callback_page(settings), methods=["GET"])],
    )


def _mask_secrets(record: logging.LogRecord) -> bool:
    """Mask the tokens of endpoints and Stripe's OAuth codes in the addresses that uvicorn's access log contains."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            _SECRET_IN_PATH.sub(r"\1…", each) if isinstance(each, str) else each for each in record.args
        )
    return True


def _cached_endpoints(settings: Settings) -> Callable[[], Sequence[WebhookEndpoint]]:
    """Return a function that returns all enabled endpoints, and reads them again after `_REFRESH_SECONDS`."""
    read_at = float("-inf")
    cached: Sequence[WebhookEndpoint] = ()

    def endpoints() -> Sequence[WebhookEndpoint]:
        nonlocal read_at, cached
        if time.monotonic() - read_at > _REFRESH_SECONDS:
            read_at, cached = time.monotonic(), webhook_endpoints(settings)
        return cached

    return endpoints
