"""The receiver as any ASGI server loads it: `uvicorn --factory orchestration.web.app:receiver`. `recoup receive` does.

The page to which Stripe sends back whoever authorized the Stripe App is on the same host.
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

_SECRET: Final = re.compile(rf"(/webhooks/\w+/|{CALLBACK_PATH}\?)[^\s?]+")

_READ_EVERY: Final = 1.0
"""Seconds after which a changed secret counts."""


def receiver(settings: Settings | None = None) -> Starlette:
    """The receiver of all integrations, by the environment's settings."""
    if settings is None:  # an ASGI server of its own loads it
        make_new_files_private()
        settings = Settings()
    logging.getLogger("uvicorn.access").addFilter(_without_secrets)
    WebhookFiles(settings).enable()
    return create_receiver(
        Queue(settings.queue_url),
        _endpoints(settings),
        wanted=settings.webhook_events,
        bus_key=settings.recoup_event_bus_key,
        watched={DEAUTHORIZED_EVENT: partial(record_deauthorization, settings)},
        routes=[Route(CALLBACK_PATH, callback_page(settings), methods=["GET"])],
    )


def _without_secrets(record: logging.LogRecord) -> bool:
    """uvicorn's access log holds the address of each request: a path that must stay unguessable, a code of Stripe's."""
    if isinstance(record.args, tuple):
        record.args = tuple(_SECRET.sub(r"\1…", each) if isinstance(each, str) else each for each in record.args)
    return True


def _endpoints(settings: Settings) -> Callable[[], Sequence[WebhookEndpoint]]:
    known: tuple[float, Sequence[WebhookEndpoint]] = (float("-inf"), ())

    def endpoints() -> Sequence[WebhookEndpoint]:
        nonlocal known
        if time.monotonic() - known[0] > _READ_EVERY:
            known = (time.monotonic(), webhook_endpoints(settings))
        return known[1]

    return endpoints
