"""The data folder of a command: that of the connected accounts or that of the demo, so that the two never mix."""

import sys
from typing import Final

from orchestration.config.settings import Settings

DEMO_FOLDER: Final = "demo"


def demo_settings(settings: Settings) -> Settings:
    """Return the settings of the demo: its own data folder, without the accounts' keys and queue."""
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
    """Return whether an account is connected in the data folder.

    Raises:
        IntegrationError: `integrations.toml` cannot be used.
    """
    from orchestration.setup.registry import make_integrations

    return bool(make_integrations(settings).all())


def shown_settings(settings: Settings) -> Settings:
    """Return the settings of the folder to show, and say so if it is the demo's.

    The demo is shown if no account is connected and no tables of an account were published.

    Raises:
        IntegrationError: `integrations.toml` cannot be used.
    """
    demo = demo_settings(settings)
    if not demo.published_path.exists() or settings.published_path.exists() or is_connected(settings):
        return settings
    print(f"No account is connected. This is the demo's data, in {demo.recoup_data_dir}.", file=sys.stderr)
    return demo
