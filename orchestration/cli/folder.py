"""Which folder a command works on: that of the accounts, or that of the demo, so that the two never mix."""

import sys
from typing import Final

from orchestration.config.settings import Settings

DEMO_FOLDER: Final = "demo"


def demo_settings(settings: Settings) -> Settings:
    """Return the settings of the demo: a data folder of its own, and neither the accounts' keys nor their queue."""
    return settings.model_copy(
        update={
            "recoup_data_dir": settings.recoup_data_dir / DEMO_FOLDER,
            "recoup_queue_url": None,
            "stripe_api_key": None,
            "stripe_api_keys": {},
            "stripe_account_id": None,
            "stripe_webhook_secret": None,
            "stripe_webhook_secrets": {},
        }
    )


def is_connected(settings: Settings) -> bool:
    """Return whether the data folder has an account of its own.

    Raises:
        IntegrationError: `integrations.toml` cannot be used.
    """
    from orchestration.accounts.registry import Integrations

    return bool(Integrations(settings).all())


def shown_settings(settings: Settings) -> Settings:
    """Return the settings of the folder to show, and print which one it is if it is the demo's.

    The demo is shown while no account is connected and nothing was published from one.

    Raises:
        IntegrationError: `integrations.toml` cannot be used.
    """
    demo = demo_settings(settings)
    if not demo.published_path.exists() or settings.published_path.exists() or is_connected(settings):
        return settings
    print(f"No account is connected: this is the demo's data, in {demo.recoup_data_dir}.", file=sys.stderr)
    return demo
