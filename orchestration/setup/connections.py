"""Make the Stripe connections and the authorization of the Stripe App from the settings."""

from orchestration.accounts.clients import StripeConnections
from orchestration.accounts.oauth_flow import CALLBACK_PATH, AppAuthorization
from orchestration.accounts.oauth_tokens import StripeApp
from orchestration.config.settings import Settings
from orchestration.setup.registry import make_integrations


def make_connections(settings: Settings) -> StripeConnections:
    """Return the object that opens Stripe clients for the integrations."""
    app = StripeApp(settings.app_client_id, settings.stripe_app_secret_key, settings.stripe_api_base)
    return StripeConnections(make_integrations(settings), app, settings.stripe_api_base)


def make_app_authorization(settings: Settings) -> AppAuthorization:
    """Return the object that lets accounts authorize the Stripe App."""
    callback_url = settings.recoup_webhook_base_url + CALLBACK_PATH
    return AppAuthorization(make_connections(settings), settings.app_page, callback_url, settings.authorizations_dir)
