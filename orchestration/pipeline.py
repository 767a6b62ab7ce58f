"""The three steps from Stripe to the analysts' file, for Dagster's assets and the command line alike.

Each opens the warehouse for itself and closes it, so that one step at a time holds the file.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from orchestration.settings import Settings
from orchestration.stripe_api import StripeClient
from orchestration.sync import Progress, SyncPlan, SyncReport, SyncRequest, plan_sync, sync_account
from orchestration.transform import Build, EventCallback, WarehouseTaken, build_models
from orchestration.warehouse.connection import FOR_LOADING, open_warehouse
from orchestration.warehouse.publish import Published, publish

_TRIES: Final = 5
"""How often dbt may find the warehouse taken, after each wait for it, before the build is given up."""


class KeyMissing(Exception):
    """No API key is set. The text says which variable to set."""


def extract(
    settings: Settings,
    observe: Callable[[Progress], None] = lambda progress: None,
    *,
    request: SyncRequest | None = None,
) -> SyncReport:
    """Bring the raw tables up to Stripe's now, and list anew what `request` asks for.

    Raises:
        KeyMissing: no key is set.
        StripeApiError, WarehouseError: as `sync_account` and `open_warehouse`.
    """
    with _client(settings) as client, open_warehouse(settings.warehouse_path, options=FOR_LOADING) as connection:
        return sync_account(client, connection, stated_id=settings.stripe_account_id, request=request, observe=observe)


def plan(settings: Settings, request: SyncRequest | None = None) -> SyncPlan:
    """What `extract` would read, estimated by a few requests.

    Raises:
        As `extract`.
    """
    with _client(settings) as client, open_warehouse(settings.warehouse_path) as connection:
        return plan_sync(client, connection, stated_id=settings.stripe_account_id, request=request)


@contextmanager
def _client(settings: Settings) -> Iterator[StripeClient]:
    if settings.stripe_api_key is None:
        raise KeyMissing(
            "STRIPE_API_KEY is not set. Put a restricted key (rk_live_… or rk_test_…) into the environment or into "
            ".env; README.md lists what it must be able to read. Without a key, `recoup demo` uses a simulated account."
        )
    client = StripeClient(settings.stripe_api_key, api_base=settings.stripe_api_base)
    try:
        yield client
    finally:
        client.close()


def build(settings: Settings, callback: EventCallback | None = None) -> Build:
    """Build and test the models.

    Raises:
        ModelsFailed: a model or a test failed.
        WarehouseError: as `open_warehouse`.
    """
    for _ in range(_TRIES - 1):
        with suppress(WarehouseTaken):
            return _build_once(settings, callback)
    return _build_once(settings, callback)


def _build_once(settings: Settings, callback: EventCallback | None) -> Build:
    with open_warehouse(settings.warehouse_path):
        pass  # the raw tables exist, and nobody else is writing
    return build_models(settings, [callback] if callback else [])


def publish_marts(settings: Settings) -> Published:
    """Swap in a new analysts' file.

    Raises:
        WarehouseError: as `open_warehouse`.
    """
    with open_warehouse(settings.warehouse_path) as connection:
        return publish(connection, settings.published_path)
