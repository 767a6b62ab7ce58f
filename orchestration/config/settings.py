"""The settings: environment variables and paths. No other module reads the environment or builds these paths.

`.env.example` and the README list every variable with its meaning. A test checks that all three agree.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from orchestration.base.account import DEFAULT_INTEGRATION
from orchestration.config.credentials import (
    SecretRefused,
    parse_api_key,
    parse_app_secret_key,
    parse_signing_secrets,
    reject_credentials,
)

PROJECT_ROOT: Final = Path(__file__).resolve().parent.parent.parent

WEBHOOK_EVENTS: Final = (
    "payment_intent.succeeded,payment_intent.payment_failed,payment_intent.processing,"
    "payment_intent.requires_action,payment_intent.canceled"
)

T = TypeVar("T")

_MARKETPLACE: Final = "https://marketplace.stripe.com"
_EVENT_TYPE: Final = re.compile(r"[a-z_0-9]+(\.[a-z_0-9]+)+")
_MEMORY: Final = re.compile(r"([1-9]\d*(?:\.\d+)?) ?(MiB|GiB)")
_MAX_MEMORY_SHARE: Final = 0.8
"""Largest share of the machine's memory for a build. DuckDB's own default is the same."""
_HOST: Final = re.compile(r"(\[[0-9a-f:]+\]|[a-z0-9]([a-z0-9_.-]*[a-z0-9])?)(:\d{1,5})?")
_MIN_BUS_KEY_CHARACTERS: Final = 24
_CRON: Final = re.compile(r"@(hourly|daily|weekly|monthly)|[\d*/,A-Za-z-]+( [\d*/,A-Za-z-]+){4}")


class Settings(BaseSettings):
    """All settings. Environment variables take precedence over `.env` in the project's folder, then come defaults."""

    model_config = SettingsConfigDict(
        env_file=PROJECT_ROOT / ".env",
        extra="ignore",
        env_ignore_empty=True,
        env_nested_delimiter="__",
        hide_input_in_errors=True,
    )

    stripe_api_key: SecretStr | None = Field(
        default=None,
        description="Restricted key (rk_live_… or rk_test_…) that may read payment intents, charges and refunds, "
        "events, and disputes.",
    )
    stripe_api_keys: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="API keys of named integrations, one variable each: STRIPE_API_KEYS__SHOP for the integration "
        "shop. Alternatively, recoup connect stores the key in a file.",
    )
    stripe_api_base: str = Field(
        default="https://api.stripe.com",
        description="Address of the Stripe API, or of a server that behaves like it.",
    )
    stripe_account_id: str | None = Field(
        default=None,
        pattern=r"^acct_\w+$",
        description="The account's id (acct_…). Needed only if the key cannot read it from Stripe.",
    )
    stripe_app_client_id: str | None = Field(
        default=None,
        description="Client id (ca_…) of your Stripe App, for recoup connect --app. For an app that is not published "
        "yet, set its whole install link.",
    )
    stripe_app_secret_key: SecretStr | None = Field(
        default=None,
        description="Secret key (sk_live_… or sk_test_…) of the account that created the app, in the same mode as the "
        "client id.",
    )
    recoup_data_dir: Path = Field(
        default=PROJECT_ROOT / "data", description="Folder for all state: tables, run history, published file."
    )
    recoup_sync_cron: str = Field(
        default="0 * * * *",
        description="When Dagster syncs, as a cron expression in UTC. An idle sync costs three reads.",
    )

    recoup_read_share: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="Share of Stripe's read allocation that scheduled syncs may use. They run less often to stay "
        "within it.",
    )
    stripe_webhook_secret: SecretStr | None = Field(
        default=None,
        description="Signing secret (whsec_…) of the webhook endpoint, or two separated by a comma while it is "
        "rolled. Alternatively, recoup webhooks secret stores it in a file.",
    )
    stripe_webhook_secrets: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="Signing secrets of named integrations, one variable each: STRIPE_WEBHOOK_SECRETS__SHOP for the "
        "integration shop.",
    )
    recoup_secrets_dir: Path | None = Field(
        default=None,
        description="Folder with one secret per file, as Docker and Kubernetes mount them. The files are named like "
        "the variables in lowercase: stripe_api_key, stripe_api_keys__shop. Environment variables take "
        "precedence.",
    )
    recoup_webhook_events: str = Field(
        default=WEBHOOK_EVENTS,
        description="Event types that are stored, separated by commas. Other events are acknowledged and counted.",
    )
    recoup_webhook_base_url: str = Field(
        default="http://127.0.0.1:8787",
        description="Address at which Stripe reaches the webhook receiver, such as https://hooks.example.com.",
    )
    recoup_queue_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL database of the webhook queue (postgresql+psycopg://user:password@host/database), for "
        "several receivers. If this is not set, or is sqlite, the queue is a SQLite file in the data "
        "folder.",
    )
    recoup_queue_days: float = Field(
        default=7, gt=0, description="Number of days for which the queue remembers an event after it was loaded."
    )
    recoup_history_days: float = Field(
        default=30, gt=0, description="Number of days for which run history, ticks and logs are kept."
    )
    recoup_build_memory: str = Field(
        default="3GiB",
        description="Memory limit for building the models, such as 3GiB or 800MiB, and at most 80 % of the machine's "
        "memory. DuckDB writes to disk what does not fit.",
    )
    recoup_event_bus_key: SecretStr | None = Field(
        default=None,
        description="Key that AWS EventBridge or Azure Event Grid sends with each request. If this is not set, their "
        "requests are refused.",
    )
    recoup_ui_hosts: str | None = Field(
        default=None,
        description="Hosts under which a proxy serves Dagster's UI, separated by commas, such as recoup.example.com. "
        "If this is not set, the UI answers only to localhost.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Add the files of RECOUP_SECRETS_DIR as the last source, after the environment and `.env`."""
        named = (init_settings, env_settings, dotenv_settings)
        folder = next(filter(None, (source().get("recoup_secrets_dir") for source in named)), None)
        if folder is None:
            return named
        try:
            mounted = NestedSecretsSettingsSource(file_secret_settings, folder, secrets_dir_missing="error")
        except SettingsError as error:
            raise SettingsError(f"RECOUP_SECRETS_DIR: {error}") from None
        except UnicodeDecodeError:
            path = _first_non_utf8_file(Path(folder))
            raise SettingsError(f"RECOUP_SECRETS_DIR: {path} is not UTF-8 text. Move it to another folder.") from None
        return (*named, mounted)

    @field_validator(
        "stripe_api_base",
        "stripe_account_id",
        "stripe_app_client_id",
        "recoup_data_dir",
        "recoup_sync_cron",
        "recoup_secrets_dir",
        "recoup_webhook_events",
        "recoup_ui_hosts",
        "recoup_webhook_base_url",
        mode="before",
    )
    @classmethod
    def _reject_credentials(cls, value: object) -> object:
        """Refuse a value that contains a credential: these settings appear in messages and files."""
        reject_credentials(str(value), "The value")
        return value

    @field_validator("stripe_api_key")
    @classmethod
    def _check_api_key(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else parse_api_key(value.get_secret_value())

    @field_validator("stripe_api_keys")
    @classmethod
    def _check_api_keys(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        return _parse_each(value, parse_api_key)

    @field_validator("stripe_app_client_id")
    @classmethod
    def _check_client_id(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"ca_\w+", _extract_client_id(value)):
            raise ValueError("give the app's client id (ca_…), or its install link, which has client_id=ca_… in it")
        return value

    @field_validator("stripe_app_secret_key")
    @classmethod
    def _check_app_secret_key(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else parse_app_secret_key(value.get_secret_value())

    @field_validator("stripe_webhook_secret")
    @classmethod
    def _check_signing_secrets(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_signing_secrets(value.get_secret_value())
        return value

    @field_validator("stripe_webhook_secrets")
    @classmethod
    def _check_named_signing_secrets(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        _parse_each(value, parse_signing_secrets)
        return value

    @field_validator("recoup_webhook_events")
    @classmethod
    def _check_event_types(cls, value: str) -> str:
        types = list(dict.fromkeys(each.strip() for each in value.split(",") if each.strip()))
        invalid = [each for each in types if not _EVENT_TYPE.fullmatch(each)]
        if invalid or not types:
            raise ValueError(f"give event types such as payment_intent.succeeded, not {', '.join(invalid) or 'none'}")
        return ",".join(types)

    @field_validator("recoup_event_bus_key")
    @classmethod
    def _check_bus_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < _MIN_BUS_KEY_CHARACTERS:
            raise ValueError(f"must be at least {_MIN_BUS_KEY_CHARACTERS} characters, so that it cannot be guessed")
        return value

    @field_validator("recoup_ui_hosts")
    @classmethod
    def _check_hosts(cls, value: str | None) -> str | None:
        hosts = [each.strip().lower() for each in (value or "").split(",") if each.strip()]
        invalid = [each for each in hosts if not _HOST.fullmatch(each)]
        if invalid:
            raise ValueError(f"give hosts such as recoup.example.com, without https:// and /, not {', '.join(invalid)}")
        return ",".join(hosts) or None

    @field_validator("recoup_build_memory")
    @classmethod
    def _check_memory(cls, value: str) -> str:
        if not _MEMORY.fullmatch(value):
            raise ValueError("give a size in MiB or GiB, such as 3GiB")
        return value

    @field_validator("recoup_webhook_base_url")
    @classmethod
    def _reject_query_fragment_or_user(cls, value: str) -> str:
        if not _has_valid_port(value):
            return value  # `_check_http_address` reports it
        parts = urlsplit(value)
        if parts.query or parts.fragment or parts.username is not None:
            raise ValueError("give the address alone, without ?, # or a user: https://hooks.example.com")
        return value

    @field_validator("recoup_queue_url")
    @classmethod
    def _normalize_queue_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        url = value.get_secret_value().strip()
        if url == "sqlite":
            return None
        scheme = url.partition("://")[0]
        if scheme not in ("postgres", "postgresql", "postgresql+psycopg") or not _is_database_url(url):
            raise ValueError(
                "give an address such as postgresql+psycopg://user:password@host:5432/database; percent-encode "
                "special characters of the password (@ is %40)"
            )
        return SecretStr("postgresql+psycopg" + url.removeprefix(scheme))

    @field_validator("stripe_api_base", "recoup_webhook_base_url")
    @classmethod
    def _check_http_address(cls, value: str) -> str:
        parts = urlsplit(value) if _has_valid_port(value) else urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give an address such as https://api.stripe.com or http://127.0.0.1:8787")
        return value.rstrip("/")

    @field_validator("recoup_sync_cron")
    @classmethod
    def _check_cron(cls, value: str) -> str:
        """Check the number of fields. Dagster checks their values when it loads the schedule."""
        if not _CRON.fullmatch(value.strip()):
            raise ValueError("give a cron expression of five fields, such as '0 * * * *' (every hour), or @daily")
        return value.strip()

    @field_validator("recoup_data_dir")
    @classmethod
    def _make_absolute(cls, value: Path) -> Path:
        """Return the absolute path. dbt and Dagster run in other folders, where a relative path would differ."""
        folder = Path(os.path.realpath(value.expanduser()))  # Python 3.12's resolve() fails on circular links
        if "?" in str(folder):  # DuckDB 1.5 inserts `.wal` before the `?`, which is another folder
            raise ValueError(f"DuckDB cannot write to a path with a ? in it: {folder}. Choose another folder")
        return folder

    @property
    def warehouse_path(self) -> Path:
        """Path of the pipeline's DuckDB file: raw tables, checkpoints, models. One process at a time opens it."""
        return self.recoup_data_dir / "warehouse.duckdb"

    @property
    def published_path(self) -> Path:
        """Path of the analysts' DuckDB file: marts and seeds. It can be opened at any time, and is replaced whole."""
        return self.recoup_data_dir / "recovery.duckdb"

    @property
    def dbt_target_dir(self) -> Path:
        """Folder of dbt's compiled SQL and artifacts."""
        return self.recoup_data_dir / "dbt" / "target"

    @property
    def dbt_log_dir(self) -> Path:
        """Folder of dbt's log files."""
        return self.recoup_data_dir / "dbt" / "logs"

    @property
    def dagster_home(self) -> Path:
        """Folder of Dagster's run history and of the state of its schedules and sensors."""
        return self.recoup_data_dir / "dagster"

    def api_key_source(self, integration: str) -> str:
        """Return the name of the variable or file that supplies the API key of a named integration."""
        variable = f"STRIPE_API_KEYS__{integration.upper()}"
        if self.recoup_secrets_dir is None:
            return variable
        path = self.recoup_secrets_dir / variable.lower()
        with suppress(OSError, UnicodeDecodeError, SecretRefused):
            if parse_api_key(path.read_text(encoding="utf-8")) == self.stripe_api_keys[integration]:
                return str(path)
        return variable

    def webhook_secrets(self, integration: str) -> Sequence[SecretStr]:
        """Return the signing secrets that the settings have for an integration. There may be none."""
        named = self.stripe_webhook_secrets.get(integration)
        secret = self.stripe_webhook_secret if integration == DEFAULT_INTEGRATION else named
        return parse_signing_secrets(secret.get_secret_value()) if secret else ()

    @property
    def app_client_id(self) -> str | None:
        """Client id of the Stripe App, or None if no app is set."""
        return None if self.stripe_app_client_id is None else _extract_client_id(self.stripe_app_client_id)

    @property
    def app_page(self) -> str:
        """Address of the page on which accounts authorize the Stripe App.

        It is the page of the app's install link, if one is set. Otherwise it is Stripe's marketplace, or the same page
        of the server that STRIPE_API_BASE names.
        """
        link = urlsplit(self.stripe_app_client_id or "")
        if link.scheme:
            return f"{link.scheme}://{link.netloc}{link.path}"
        is_stripe = self.stripe_api_base == type(self).model_fields["stripe_api_base"].default
        return f"{_MARKETPLACE if is_stripe else self.stripe_api_base}/oauth/v2/authorize"

    @property
    def authorizations_dir(self) -> Path:
        """Folder of the pending authorizations of the app. No integration can have its name."""
        return self.secrets_dir / ".authorizations"

    @property
    def integrations_path(self) -> Path:
        """Path of the file that lists the named integrations. It holds no secrets."""
        return self.recoup_data_dir / "integrations.toml"

    @property
    def webhook_events(self) -> frozenset[str]:
        """Types of the webhook events that are stored."""
        return frozenset(self.recoup_webhook_events.split(","))

    @property
    def ui_hosts(self) -> frozenset[str]:
        """Lowercase hosts under which a proxy serves Dagster's UI."""
        return frozenset(self.recoup_ui_hosts.split(",")) if self.recoup_ui_hosts else frozenset()

    @property
    def build_memory(self) -> str:
        """Memory limit of a build in MiB, in DuckDB's notation: `3072MiB`."""
        size, unit = _MEMORY.fullmatch(self.recoup_build_memory).groups()  # type: ignore[union-attr]
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
        return f"{int(min(float(size) * (1 if unit == 'MiB' else 1024), _MAX_MEMORY_SHARE * machine))}MiB"

    @property
    def queue_url(self) -> str:
        """URL of the webhook queue's database: SQLite or PostgreSQL. It may contain a password."""
        if self.recoup_queue_url is not None:
            return self.recoup_queue_url.get_secret_value()
        return f"sqlite:///{self.queue_path}"

    @property
    def queue_path(self) -> Path:
        """Path of the webhook queue's SQLite file. It is not used if RECOUP_QUEUE_URL names a PostgreSQL database."""
        return self.recoup_data_dir / "webhook_queue.sqlite"

    @property
    def secrets_dir(self) -> Path:
        """Folder of the stored secrets, which only its owner can read."""
        return self.recoup_data_dir / "secrets"

    @property
    def simulator_state_path(self) -> Path:
        """Path of the file in which `recoup demo` stores the seed and the clock of its simulated account."""
        return self.recoup_data_dir / "simulator.json"


def _parse_each(secrets: Mapping[str, SecretStr], parse: Callable[[str], T]) -> dict[str, T]:
    """Parse the secret of each integration.

    Raises:
        ValueError: `parse` refused a secret. The text begins with the name of its integration.
    """
    parsed = {}
    for name, secret in secrets.items():
        try:
            parsed[name] = parse(secret.get_secret_value())
        except SecretRefused as error:
            raise ValueError(f"{name}: {error}") from None
    return parsed


def _has_valid_port(url: str) -> bool:
    """Return whether an address can be parsed and its port is not 0."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _is_database_url(url: str) -> bool:
    from sqlalchemy import make_url  # slow to import, and only needed for PostgreSQL
    from sqlalchemy.exc import ArgumentError

    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):  # such as a port that is not a number
        return False
    return (parts.port or 1) in range(1, 65_536) and "[" not in (parts.host or "")


def _first_non_utf8_file(folder: Path) -> Path:
    """Return the first file that is not UTF-8 text, or the folder if there is none."""
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return path
    return folder


def _extract_client_id(link_or_id: str) -> str:
    """Return the client id from the install link of an app. A client id is returned as it is."""
    return parse_qs(urlsplit(link_or_id).query).get("client_id", [link_or_id])[0].strip()
