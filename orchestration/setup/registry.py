"""Make the registry of integrations and the webhook endpoints from the settings."""

from orchestration.accounts.registry import ConfiguredKey, Integration, Integrations
from orchestration.accounts.webhook_endpoints import WebhookEndpoints
from orchestration.base.account import DEFAULT_INTEGRATION
from orchestration.config.settings import Settings


def make_integrations(settings: Settings) -> Integrations:
    """Return the registry of the data folder. It reads `integrations.toml` when it is first used."""
    default = Integration(
        DEFAULT_INTEGRATION, settings.stripe_api_key, "STRIPE_API_KEY", account_id=settings.stripe_account_id
    )
    configured = {
        name: ConfiguredKey(key, settings.api_key_source(name)) for name, key in settings.stripe_api_keys.items()
    }
    return Integrations(settings.integrations_path, settings.secrets_dir, default, configured)


def make_webhook_endpoints(settings: Settings) -> WebhookEndpoints:
    """Return the webhook endpoints of the data folder."""
    names = (DEFAULT_INTEGRATION, *settings.stripe_webhook_secrets)
    secrets = {name: settings.webhook_secrets(name) for name in names}
    return WebhookEndpoints(settings.secrets_dir, settings.recoup_webhook_base_url, secrets)
