"""THE place for paths and environment variables. Nothing else in the project reads either.

Every variable is listed with its meaning in `.env.example` and in the README; a test holds the three equal.
"""

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
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

from orchestration.config.credentials import (
    SecretRefused,
    parse_api_key,
    parse_app_secret_key,
    parse_signing_secrets,
    reject_credentials,
)

PROJECT_ROOT: Final = Path(__file__).resolve().parent.parent.parent
DBT_PROJECT_DIR: Final = PROJECT_ROOT / "dbt_project"

WEBHOOK_EVENTS: Final = (
    "payment_intent.succeeded,payment_intent.payment_failed,payment_intent.processing,"
    "payment_intent.requires_action,payment_intent.canceled"
)
DEFAULT_INTEGRATION: Final = "default"
"""The integration of STRIPE_API_KEY, which needs no name."""

T = TypeVar("T")

_UNSAFE_IN_URLS: Final = frozenset("%#[]*")
_MARKETPLACE: Final = "https://marketplace.stripe.com"
_EVENT_TYPE: Final = re.compile(r"[a-z_0-9]+(\.[a-z_0-9]+)+")
_MEMORY: Final = re.compile(r"([1-9]\d*(?:\.\d+)?) ?(MiB|GiB)")
_MEMORY_SHARE: Final = 0.8
"""Share of the machine's memory that DuckDB takes at most by default."""
_HOST: Final = re.compile(r"(\[[0-9a-f:]+\]|[a-z0-9]([a-z0-9_.-]*[a-z0-9])?)(:\d{1,5})?")
_LEAST_KEY: Final = 24
_CRON: Final = re.compile(r"@(hourly|daily|weekly|monthly)|[\d*/,A-Za-z-]+( [\d*/,A-Za-z-]+){4}")


class Settings(BaseSettings):
    """What a user can set: from the environment, else from `.env` in the project's folder, else the default."""

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
        description="The keys of named integrations, one variable for each: STRIPE_API_KEYS__SHOP for that of shop. "
        "Instead of it, recoup connect keeps the key in a file.",
    )
    stripe_api_base: str = Field(
        default="https://api.stripe.com",
        description="Address of Stripe, or of any server that behaves like it.",
    )
    stripe_account_id: str | None = Field(
        default=None,
        pattern=r"^acct_\w+$",
        description="The account's id (acct_…), needed only where the key may not read it from Stripe.",
    )
    stripe_app_client_id: str | None = Field(
        default=None,
        description="Client id (ca_…) of your Stripe App, for recoup connect --app; or the app's whole install link, "
        "which one that is not published yet needs.",
    )
    stripe_app_secret_key: SecretStr | None = Field(
        default=None,
        description="Secret key (sk_live_… or sk_test_…) of the account that made the app, in the mode of the client "
        "id.",
    )
    recoup_data_dir: Path = Field(
        default=PROJECT_ROOT / "data", description="Folder of all state: tables, run history, published file."
    )
    recoup_sync_cron: str = Field(
        default="0 * * * *",
        description="When Dagster syncs, as a cron expression in UTC. An idle sync costs three reads.",
    )

    recoup_read_share: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="Share of Stripe's read allocation that scheduled syncs may use: "
        "they run less often to keep to it.",
    )
    stripe_webhook_secret: SecretStr | None = Field(
        default=None,
        description="Signing secret (whsec_…) of the webhook endpoint; two, separated by a comma, while it is rolled. "
        "Instead of it, the command recoup webhooks secret keeps it in a file.",
    )
    stripe_webhook_secrets: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="The same for named integrations: STRIPE_WEBHOOK_SECRETS__SHOP for that of shop.",
    )
    recoup_secrets_dir: Path | None = Field(
        default=None,
        description="Folder with one secret in each file, as Docker and Kubernetes mount them, named as the variables "
        "in small letters: stripe_api_key, stripe_api_keys__shop. The environment goes before it.",
    )
    recoup_webhook_events: str = Field(
        default=WEBHOOK_EVENTS,
        description="Event types that are stored, separated by commas; others are acknowledged and counted.",
    )
    recoup_webhook_base_url: str = Field(
        default="http://127.0.0.1:8787",
        description="Address under which Stripe reaches the receiver, such as https://hooks.example.com.",
    )
    recoup_queue_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL for the webhook queue (postgresql+psycopg://user:password@host/database), "
        "for several receivers. Without it, or with sqlite, a SQLite file in the data folder.",
    )
    recoup_queue_days: float = Field(
        default=7, gt=0, description="Days for which the queue remembers an event after it was loaded."
    )
    recoup_history_days: float = Field(
        default=30, gt=0, description="Days for which run history, ticks and logs are kept."
    )
    recoup_build_memory: str = Field(
        default="3GiB",
        description="Most memory of a build of the models, such as 3GiB or 800MiB; at most 80 % of the machine's. What "
        "does not fit goes to disk.",
    )
    recoup_event_bus_key: SecretStr | None = Field(
        default=None,
        description="Key that AWS EventBridge or Azure Event Grid sends along; without one they are not served.",
    )
    recoup_ui_hosts: str | None = Field(
        default=None,
        description="Hosts under which a proxy serves Dagster's UI, separated by commas, such as recoup.example.com. "
        "Without it, the UI answers to localhost only.",
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
        """The files of RECOUP_SECRETS_DIR come after the environment and `.env`."""
        named = (init_settings, env_settings, dotenv_settings)
        folder = next(filter(None, (source().get("recoup_secrets_dir") for source in named)), None)
        if folder is None:
            return named
        try:
            mounted = NestedSecretsSettingsSource(file_secret_settings, folder, secrets_dir_missing="error")
        except SettingsError as error:
            raise SettingsError(f"RECOUP_SECRETS_DIR: {error}") from None
        except UnicodeDecodeError:
            raise SettingsError(f"RECOUP_SECRETS_DIR: {_no_text(Path(folder))} is not text, as secrets are") from None
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
    def _no_credential(cls, value: object) -> object:
        """These are shown in messages and stand in files, so no key may be in them."""
        reject_credentials(str(value), "The value")
        return value

    @field_validator("stripe_api_key")
    @classmethod
    def _key_of_one_account(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else parse_api_key(value.get_secret_value())

    @field_validator("stripe_api_keys")
    @classmethod
    def _keys_of_one_account_each(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        return _each_checked(value, parse_api_key)

    @field_validator("stripe_app_client_id")
    @classmethod
    def _an_app(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"ca_\w+", _client_id(value)):
            raise ValueError("give the app's client id (ca_…), or its install link, which has client_id=ca_… in it")
        return value

    @field_validator("stripe_app_secret_key")
    @classmethod
    def _key_of_an_app(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else parse_app_secret_key(value.get_secret_value())

    @field_validator("stripe_webhook_secret")
    @classmethod
    def _signing_secrets(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_signing_secrets(value.get_secret_value())
        return value

    @field_validator("stripe_webhook_secrets")
    @classmethod
    def _signing_secrets_of_each(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        _each_checked(value, parse_signing_secrets)
        return value

    @field_validator("recoup_webhook_events")
    @classmethod
    def _event_types(cls, value: str) -> str:
        types = list(dict.fromkeys(each.strip() for each in value.split(",") if each.strip()))
        unclear = [each for each in types if not _EVENT_TYPE.fullmatch(each)]
        if unclear or not types:
            raise ValueError(f"give event types such as payment_intent.succeeded, not {', '.join(unclear) or 'none'}")
        return ",".join(types)

    @field_validator("recoup_event_bus_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < _LEAST_KEY:
            raise ValueError(f"a key that nobody can guess has at least {_LEAST_KEY} letters")
        return value

    @field_validator("recoup_ui_hosts")
    @classmethod
    def _hosts(cls, value: str | None) -> str | None:
        hosts = [each.strip().lower() for each in (value or "").split(",") if each.strip()]
        unclear = [each for each in hosts if not _HOST.fullmatch(each)]
        if unclear:
            raise ValueError(f"give hosts such as recoup.example.com, without https:// and /, not {', '.join(unclear)}")
        return ",".join(hosts) or None

    @field_validator("recoup_build_memory")
    @classmethod
    def _an_amount_of_memory(cls, value: str) -> str:
        if not _MEMORY.fullmatch(value):
            raise ValueError("give a size in MiB or GiB, such as 3GiB")
        return value

    @field_validator("recoup_webhook_base_url")
    @classmethod
    def _nothing_but_an_address(cls, value: str) -> str:
        if not _has_usable_port(value):
            return value  # `_an_http_address` says what is wrong
        parts = urlsplit(value)
        if parts.query or parts.fragment or parts.username is not None:
            raise ValueError("give the address alone, without ?, # or a user: https://hooks.example.com")
        return value

    @field_validator("recoup_queue_url")
    @classmethod
    def _postgresql(cls, value: SecretStr | None) -> SecretStr | None:
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
    def _an_http_address(cls, value: str) -> str:
        parts = urlsplit(value) if _has_usable_port(value) else urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give an address such as https://api.stripe.com or http://127.0.0.1:8787")
        return value.rstrip("/")

    @field_validator("recoup_sync_cron")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        """Only the shape: Dagster judges the rest when it loads the schedule."""
        if not _CRON.fullmatch(value.strip()):
            raise ValueError("give a cron expression of five fields, such as '0 * * * *' (every hour), or @daily")
        return value.strip()

    @field_validator("recoup_data_dir")
    @classmethod
    def _an_absolute_folder(cls, value: Path) -> Path:
        """dbt and Dagster run in folders of their own, so a relative path would name several places."""
        folder = Path(os.path.realpath(value.expanduser()))  # Python 3.12's resolve() fails on links in a circle
        if "?" in str(folder):  # duckdb 1.5 puts `.wal` before it, into another folder
            raise ValueError(f"DuckDB cannot write to a folder with a ? in its path, such as {folder}. Choose another")
        return folder

    @property
    def warehouse_path(self) -> Path:
        """DuckDB file of the pipeline: raw tables, checkpoints, models. Opened by one writer at a time."""
        return self.recoup_data_dir / "warehouse.duckdb"

    @property
    def published_path(self) -> Path:
        """DuckDB file of the analysts: marts and seeds, swapped in whole. May be opened at any time."""
        return self.recoup_data_dir / "recovery.duckdb"

    @property
    def dbt_target_dir(self) -> Path:
        """dbt's compiled SQL and artifacts."""
        return self.recoup_data_dir / "dbt" / "target"

    @property
    def dbt_log_dir(self) -> Path:
        """dbt's own log files."""
        return self.recoup_data_dir / "dbt" / "logs"

    @property
    def dagster_home(self) -> Path:
        """Dagster's run history, schedules' and sensors' state."""
        return self.recoup_data_dir / "dagster"

    def api_key_source(self, integration: str) -> str:
        """Where the key that is set for a named integration is set: its variable, or its file among the secrets."""
        variable = f"STRIPE_API_KEYS__{integration.upper()}"
        if self.recoup_secrets_dir is None:
            return variable
        path = self.recoup_secrets_dir / variable.lower()
        with suppress(OSError, UnicodeDecodeError, SecretRefused):
            if parse_api_key(path.read_text(encoding="utf-8")) == self.stripe_api_keys[integration]:
                return str(path)
        return variable

    def webhook_secrets(self, integration: str) -> Sequence[SecretStr]:
        """The signing secrets that are set for an integration; none where the environment has none."""
        named = self.stripe_webhook_secrets.get(integration)
        secret = self.stripe_webhook_secret if integration == DEFAULT_INTEGRATION else named
        return parse_signing_secrets(secret.get_secret_value()) if secret else ()

    @property
    def app_client_id(self) -> str | None:
        """The Stripe App's client id, if one is set."""
        return None if self.stripe_app_client_id is None else _client_id(self.stripe_app_client_id)

    @property
    def app_page(self) -> str:
        """Where accounts agree to the app: the page of its install link, else Stripe's; or the server's that behaves
        like Stripe."""
        link = urlsplit(self.stripe_app_client_id or "")
        if link.scheme:
            return f"{link.scheme}://{link.netloc}{link.path}"
        is_stripe = self.stripe_api_base == type(self).model_fields["stripe_api_base"].default
        return f"{_MARKETPLACE if is_stripe else self.stripe_api_base}/oauth/v2/authorize"

    @property
    def authorizations_dir(self) -> Path:
        """Folder of the authorizations of the app that are under way. No integration has this name."""
        return self.secrets_dir / ".authorizations"

    @property
    def integrations_path(self) -> Path:
        """The named integrations: what each is, without its secrets."""
        return self.recoup_data_dir / "integrations.toml"

    @property
    def webhook_events(self) -> frozenset[str]:
        """Event types that are stored."""
        return frozenset(self.recoup_webhook_events.split(","))

    @property
    def ui_hosts(self) -> frozenset[str]:
        """Hosts under which a proxy serves Dagster's UI, in lowercase."""
        return frozenset(self.recoup_ui_hosts.split(",")) if self.recoup_ui_hosts else frozenset()

    @property
    def build_memory(self) -> str:
        """Memory limit of a build, as DuckDB writes it."""
        size, unit = _MEMORY.fullmatch(self.recoup_build_memory).groups()  # type: ignore[union-attr]
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
        return f"{int(min(float(size) * (1 if unit == 'MiB' else 1024), _MEMORY_SHARE * machine))}MiB"

    @property
    def queue_url(self) -> str:
        """Database of the webhook queue: a PostgreSQL address, which may hold a password; or sqlite:/// and a path."""
        if self.recoup_queue_url is not None:
            return self.recoup_queue_url.get_secret_value()
        return f"sqlite:///{self.queue_path}"

    @property
    def queue_path(self) -> Path:
        """SQLite file of the webhook queue, unless RECOUP_QUEUE_URL names another database."""
        return self.recoup_data_dir / "webhook_queue.sqlite"

    @property
    def secrets_dir(self) -> Path:
        """Folder of what must stay secret, readable by its owner only."""
        return self.recoup_data_dir / "secrets"

    @property
    def simulator_state_path(self) -> Path:
        """Where the simulated account of `recoup demo` keeps its seed and its clock between runs."""
        return self.recoup_data_dir / "simulator.json"


@cache
def url_safe_path(folder: Path) -> Path:
    """Return a path of a folder that can be part of a URL as it stands: a link to it if others would misread its path.

    Dagster writes its home into a database URL, where `%41` would become `A`. dbt-duckdb takes the name of a database
    from its path, up to a `#`. Dagster makes no event log in a folder with the characters of a pattern. The link is in
    the folder for temporary files, in a folder of this user's. Each process makes it again if it is missing.

    Raises:
        PermissionError: the folder of the links belongs to another user.
    """
    if not _UNSAFE_IN_URLS & set(str(folder)):
        return folder
    links = Path(tempfile.gettempdir()) / f"recoup-{os.getuid()}"
    links.mkdir(mode=0o700, exist_ok=True)
    if links.is_symlink() or links.stat().st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "it belongs to another user", str(links))
    link = links / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    if not link.is_symlink() or link.readlink() != folder:
        beside = link.with_name(f"{link.name}.{os.getpid()}")
        beside.unlink(missing_ok=True)
        beside.symlink_to(folder)
        os.replace(beside, link)
    return link


def _each_checked(secrets: Mapping[str, SecretStr], check: Callable[[str], T]) -> dict[str, T]:
    """What `check` makes of each secret; where it refuses one, the text says of which integration it is."""
    checked = {}
    for name, secret in secrets.items():
        try:
            checked[name] = check(secret.get_secret_value())
        except SecretRefused as error:
            raise ValueError(f"{name}: {error}") from None
    return checked


def _has_usable_port(url: str) -> bool:
    """Return whether the address can be parsed. An IPv6 host without its bracket cannot, nor a port of letters."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _is_database_url(url: str) -> bool:
    from sqlalchemy import make_url  # only needed if there is one
    from sqlalchemy.exc import ArgumentError

    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):  # such as a port that is no number
        return False
    return (parts.port or 1) in range(1, 65_536) and "[" not in (parts.host or "")


def _no_text(folder: Path) -> Path:
    """The first file that is none."""
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return path
    return folder


def _client_id(link_or_id: str) -> str:
    """The client id in the install link of an app, or as it stands."""
    return parse_qs(urlsplit(link_or_id).query).get("client_id", [link_or_id])[0].strip()
