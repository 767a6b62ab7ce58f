"""The registry of integrations: which Stripe accounts are connected, and where the API key of each comes from.

STRIPE_API_KEY configures the integration `default`. Named integrations are listed in `data/integrations.toml`, which
holds no secrets. Their keys come from the environment (STRIPE_API_KEYS__SHOP) or else from files that only their owner
can read.
"""

import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Table

from orchestration.base.account import DEFAULT_INTEGRATION
from orchestration.base.errors import RecoupError
from orchestration.base.files import read_secret, write_secret
from orchestration.base.locks import exclusive_lock
from orchestration.config.credentials import SecretRefused, parse_api_key, reject_credentials

ACCOUNT_ID: Final = r"^acct_\w+$"
"""Pattern of a Stripe account's id."""

_NAME: Final = re.compile(r"(?=.{1,64}$)[a-z][a-z0-9]*(_[a-z0-9]+)*")
"""Pattern of an integration's name. `__` is not allowed: in a variable it separates the setting from the name."""

_VALIDATION_MESSAGES: Final = {
    "model_type": "must be a table, such as [shop]",
    "extra_forbidden": "there is no such setting",
    "list_type": "must be a list, such as ['acct_1A*']",
    "bool_parsing": "must be true or false",
    "string_type": "must be a text in quotation marks",
    "string_pattern_mismatch": "must look like acct_…",
}
"""Messages for pydantic's types of errors in `integrations.toml`."""

_SECRETS_PREFIX: Final = "secrets/"
"""Prefix of `Integration.key_source` if the key is in a file that Recoup wrote."""


class IntegrationError(RecoupError):
    """An integration that is unknown, already exists, or cannot be read. The text says which, and what to do."""


@dataclass(frozen=True)
class Integration:
    """A connected Stripe account with its name, key and settings.

    Attributes:
        name: The name that the user chose.
        api_key: The key, or None if it is missing. The Stripe App has tokens instead (`oauth_tokens`).
        key_source: The variable or file that supplies the key, for messages.
        description: The user's own text.
        account_id: The Stripe account's id, or None as long as Stripe has not been asked.
        livemode: Whether the account is read in live mode, or None as long as Stripe has not been asked.
        connected: Patterns that choose which connected accounts of a Connect platform become integrations.
        platform: For such a connected account, the name of the integration whose key reads it.
        is_app: Whether the account has authorized the Stripe App.
    """

    name: str
    api_key: SecretStr | None
    key_source: str
    description: str = ""
    account_id: str | None = None
    livemode: bool | None = None
    connected: Sequence[str] = ()
    platform: str | None = None
    is_app: bool = False


@dataclass(frozen=True)
class ConfiguredKey:
    """An API key from the environment, and the variable or file that supplies it."""

    key: SecretStr
    source: str


class _Entry(BaseModel):
    """The table of one integration in `integrations.toml`."""

    model_config = ConfigDict(extra="forbid")

    description: str = ""
    account_id: str | None = Field(default=None, pattern=ACCOUNT_ID)
    livemode: bool | None = None
    connected: list[str] = []
    platform: str | None = None
    is_app: bool = False


_ENTRIES: Final = TypeAdapter(dict[str, _Entry])


def check_name(name: str) -> str:
    """Return a name if an integration may have it. It is used for a Dagster partition, a variable and a folder.

    Raises:
        IntegrationError: The name is not valid.
        SecretRefused: The name looks like a key.
    """
    reject_credentials(name, "The name")
    if name == DEFAULT_INTEGRATION:
        raise IntegrationError("`default` is the integration of STRIPE_API_KEY. Choose another name.")
    if not _NAME.fullmatch(name):
        raise IntegrationError(
            "A name consists of lowercase letters, digits and single underscores between them, such as shop_eu. It "
            "starts with a letter and has at most 64 characters."
        )
    return name


def already_connected_error(other: Integration, how: str) -> IntegrationError:
    """Build the error for an account or key that another integration has. It says how to continue with that one.

    Args:
        other: The integration that exists.
        how: What both have in common: "reads this account".
    """
    text = f"Integration {other.name!r} ({other.key_source}) {how} already."
    if other.name == DEFAULT_INTEGRATION:
        return IntegrationError(text)
    return IntegrationError(f"{text} {_renewal_hint(other)}")


class Integrations:
    """The integrations of a data folder.

    An instance reads `integrations.toml` once, when it is first needed, and again before each change. Changes are
    written at once. Several processes can change the file at the same time; `reload` shows what they changed. Any
    method that reads the file raises IntegrationError if it is not valid.

    Args:
        path: The file `integrations.toml`, which need not exist.
        secrets_dir: The folder of the stored keys, tokens and signing secrets.
        default: The integration `default`, whose key may be None.
        configured_keys: Keys of named integrations from the environment. They override stored keys.
    """

    def __init__(
        self, path: Path, secrets_dir: Path, default: Integration, configured_keys: Mapping[str, ConfiguredKey]
    ) -> None:
        self.path = path
        self._secrets_dir, self._default, self._configured_keys = secrets_dir, default, configured_keys
        self._file = _IntegrationsFile(path)
        self._read_entries: Mapping[str, _Entry] | None = None

    def reload(self) -> "Integrations":
        """Return a registry of the same folder that reads the file again. This one does not change."""
        return Integrations(self.path, self._secrets_dir, self._default, self._configured_keys)

    @property
    def _entries(self) -> Mapping[str, _Entry]:
        if self._read_entries is None:
            self._read_entries = self._file.read()
        return self._read_entries

    @property
    def configured_names(self) -> Sequence[str]:
        """Return the names that have a key in the environment, whether or not such an integration exists."""
        return sorted(self._configured_keys)

    def all(self) -> Sequence[Integration]:
        """Return `default`, if STRIPE_API_KEY is set, and then the named integrations in the order of the file."""
        named = [self._build(name, entry) for name, entry in self._entries.items()]
        return [self._default, *named] if self._default.api_key else named

    def named(self, name: str) -> Integration:
        """Return the integration with this name. `default` always exists, even without a key.

        Raises:
            IntegrationError: There is no such integration.
        """
        if name == DEFAULT_INTEGRATION:
            return self._default
        if name not in self._entries:
            known = ", ".join(each.name for each in self.all()) or "none yet; `recoup connect` makes one"
            raise IntegrationError(f"There is no integration {name!r}. There are: {known}.")
        return self._build(name, self._entries[name])

    def accounts(self) -> Mapping[str, str | None]:
        """Return the account id of each integration, or None if it is not known yet. No key is read."""
        named = {name: entry.account_id for name, entry in self._entries.items()}
        return {DEFAULT_INTEGRATION: self._default.account_id, **named}

    def connected_accounts(self, platform: str) -> Sequence[Integration]:
        """Return the connected accounts that are read with the key of a platform."""
        return [each for each in self.all() if each.platform == platform]

    def require_named(self, name: str) -> None:
        """Check that an integration can be renamed or removed.

        Raises:
            IntegrationError: There is no such integration, or it is `default`.
        """
        if name == DEFAULT_INTEGRATION:
            raise IntegrationError("`default` is the integration of STRIPE_API_KEY: change the variable instead.")
        self.named(name)

    def require_own_key(self, name: str) -> Integration:
        """Return the integration with this name if its API key is in a file that Recoup wrote.

        Raises:
            IntegrationError: There is no such integration, it has no key, or its key belongs to a platform or is set in
                the environment.
        """
        integration = self.named(name)
        if integration.platform is not None:
            raise IntegrationError(
                f"{name!r} is read with the key of its platform: recoup integrations set-key {integration.platform}"
            )
        if integration.is_app:
            raise IntegrationError(f"{name!r} has no key: it is read by the Stripe App. {_renewal_hint(integration)}")
        if integration.key_source != self._relative_path(self._key_path(name)):
            raise IntegrationError(f"The key of {name!r} is set by {integration.key_source}. Change it there.")
        return integration

    def check_new_name(self, name: str) -> str:
        """Return a name if a new integration may have it.

        Raises:
            IntegrationError: The name is not valid, or an integration has it.
        """
        if name in self._entries:
            raise IntegrationError(
                f"There is an integration {name!r} already. Choose another name, or give it another key: "
                f"recoup integrations set-key {name}"
            )
        return check_name(name)

    def check_account(self, integration: Integration) -> None:
        """Check that no other integration has the same account and mode, or the same key.

        Raises:
            IntegrationError: Another integration has.
        """
        for other in self.all():
            is_own_key = other.api_key is not None and {other.platform, integration.platform} == {None}
            is_same_key = is_own_key and other.api_key == integration.api_key
            is_same_account = other.account_id is not None and (
                (other.account_id, other.livemode) == (integration.account_id, integration.livemode)
            )
            if other.name != integration.name and (is_same_key or is_same_account):
                raise already_connected_error(other, "is read with this key" if is_same_key else "reads this account")

    def add(self, integration: Integration) -> None:
        """Add an integration. Its API key, if it has one of its own, is written to a file.

        Raises:
            IntegrationError: Another integration has the name, the account or the key.
        """
        entry = _Entry.model_validate(integration, from_attributes=True)
        with self._edit() as document:
            self.check_new_name(integration.name)
            self.check_account(integration)
            document[integration.name] = {"description": entry.description} | entry.model_dump(exclude_defaults=True)
            if integration.platform is None and integration.api_key is not None:
                self.delete_secrets(integration.name)
                write_secret(self._key_path(integration.name), integration.api_key.get_secret_value())

    def set_connected(self, name: str, patterns: Sequence[str]) -> None:
        """Set the patterns that choose which connected accounts of a platform become integrations.

        Raises:
            IntegrationError: There is no such integration, or it is `default`.
        """
        with self._edit() as document:
            self.require_named(name)
            document[name]["connected"] = list(patterns)

    def set_account(self, name: str, account_id: str, *, livemode: bool) -> None:
        """Store the account and mode of an integration. From then on, keys of other accounts are refused.

        Raises:
            IntegrationError: Another integration reads this account and mode.
        """
        known = self.named(name)
        if name == DEFAULT_INTEGRATION or (known.account_id, known.livemode) == (account_id, livemode):
            return
        with self._edit() as document:
            self.require_named(name)
            self.check_account(replace(known, account_id=account_id, livemode=livemode))
            document[name].update({"account_id": account_id, "livemode": livemode})

    def set_key(self, name: str, key: SecretStr) -> None:
        """Replace the API key of an integration.

        Raises:
            IntegrationError: As `require_own_key`.
        """
        self.require_own_key(name)
        write_secret(self._key_path(name), key.get_secret_value())

    def rename(self, name: str, new_name: str) -> None:
        """Rename an integration. Its tables, its secrets and the address of its webhook endpoint stay the same.

        Raises:
            IntegrationError: There is no such integration, or another one has the new name.
        """
        self.require_named(name)
        old_folder, new_folder = self._secrets_dir / name, self._secrets_dir / new_name
        with self._edit() as document, self._token_lock(name):
            self.require_named(name)
            self.check_new_name(new_name)
            _rename_table(document, name, new_name)
            for connected in self.connected_accounts(name):
                document[connected.name]["platform"] = new_name
            self.delete_secrets(new_name)
            if old_folder.exists():  # copy, not move: an interruption leaves the secrets under both names
                shutil.copytree(old_folder, new_folder)
        self.delete_secrets(name)

    def remove(self, name: str) -> None:
        """Remove an integration, its secrets, and the connected accounts that are read with its key.

        Their data stays in the tables.

        Raises:
            IntegrationError: There is no such integration, or it is `default`.
        """
        with self._edit() as document:
            self.require_named(name)
            names = (name, *(connected.name for connected in self.connected_accounts(name)))
            for each in names:
                document.remove(each)
        for each in names:
            self.delete_secrets(each)

    def delete_secrets(self, name: str) -> None:
        """Delete the stored secrets of an integration that no longer exists, or does not exist yet.

        A new integration must not get the secrets of one with the same name that was deleted from the file by hand.
        """
        with suppress(FileNotFoundError):
            shutil.rmtree(self._secrets_dir / name)

    @contextmanager
    def _edit(self) -> Iterator[tomlkit.TOMLDocument]:
        """Lock the file, read it again, and yield its content. Write the content when the context ends."""
        with self._file.lock():
            document = self._file.load()
            self._read_entries = self._file.validate(document.unwrap())
            yield document
            self._read_entries = self._file.save(document)

    def tokens_path(self, name: str) -> Path:
        """Return the path of the tokens of an integration that authorized the Stripe App."""
        return self._secrets_dir / name / "oauth.json"

    def _token_lock(self, name: str) -> AbstractContextManager[None]:
        """Hold the lock of an integration's tokens, so that tokens renewed during a rename are not lost."""
        path = self.tokens_path(name)
        return exclusive_lock(path.with_suffix(".lock")) if path.exists() else nullcontext()

    def _build(self, name: str, entry: _Entry) -> Integration:
        """Return the integration of an entry with its API key, which is None if it is missing or damaged."""
        if entry.platform is not None:
            platform = self.named(entry.platform)
            return replace(platform, name=name, **entry.model_dump())
        if entry.is_app:
            key_source = self._relative_path(self.tokens_path(name))
            return Integration(name, None, key_source, **entry.model_dump())
        configured = self._configured_keys.get(name)
        return Integration(
            name,
            configured.key if configured else self._read_key(name),
            configured.source if configured else self._relative_path(self._key_path(name)),
            **entry.model_dump(),
        )

    def _read_key(self, name: str) -> SecretStr | None:
        """Return the stored API key, or None: an unreadable key must not affect the other integrations."""
        with suppress(OSError, UnicodeDecodeError, SecretRefused):
            return parse_api_key(read_secret(self._key_path(name)) or "")
        return None

    def _key_path(self, name: str) -> Path:
        return self._secrets_dir / name / "api_key"

    def _relative_path(self, path: Path) -> str:
        return str(path.relative_to(self._secrets_dir.parent))


class _IntegrationsFile:
    """The file `integrations.toml`. What the user wrote by hand, such as comments, stays when it is changed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lock(self) -> AbstractContextManager[None]:
        """Hold the lock that every change of the file needs."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return exclusive_lock(self._path.with_name(f".{self._path.name}.lock"))

    def read(self) -> Mapping[str, _Entry]:
        """Return the entries of the file, or none if there is no file.

        `tomllib` is ten times as fast as `tomlkit`, whose messages are better.

        Raises:
            IntegrationError: The file is not valid.
        """
        try:
            tables: Mapping[str, object] = tomllib.loads(self._path.read_text(encoding="utf-8-sig"))
        except (FileNotFoundError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
            tables = self.load().unwrap()
        return self.validate(tables)

    def load(self) -> tomlkit.TOMLDocument:
        """Return the content of the file in a form that can be changed.

        Raises:
            IntegrationError: The file is not TOML.
        """
        try:
            return tomlkit.parse(self._path.read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            return tomlkit.document()
        except (TOMLKitError, UnicodeDecodeError, RecursionError) as error:
            raise IntegrationError(f"{self._path} is not TOML: {error}") from None

    def save(self, document: tomlkit.TOMLDocument) -> Mapping[str, _Entry]:
        """Write the file and return its entries.

        Raises:
            IntegrationError: The result would not be valid. The file stays as it is.
        """
        text = tomlkit.dumps(document)
        try:
            entries = self.validate(tomlkit.parse(text).unwrap())
        except TOMLKitError:
            raise IntegrationError(
                f"{self._path} has a format that Recoup cannot change. Give each integration its own table, such as "
                "[shop], with one setting per line."
            ) from None
        write_secret(self._path, text.rstrip("\n"))
        return entries

    def validate(self, tables: Mapping[str, object]) -> Mapping[str, _Entry]:
        """Return the entries of a parsed file.

        Raises:
            IntegrationError: A name or a setting is not valid.
        """
        try:
            entries = _ENTRIES.validate_python(tables)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, each['loc']))}: {_VALIDATION_MESSAGES.get(each['type'], each['msg'])}"
                for each in error.errors()
            )
            raise IntegrationError(f"{self._path} cannot be used: {problems}") from None
        for name, entry in entries.items():
            if name == DEFAULT_INTEGRATION or not _NAME.fullmatch(name):
                raise IntegrationError(f"{self._path}: {name!r} is not a valid name (such as shop_eu).")
            if entry.platform is not None and entries.get(entry.platform, entry).platform is not None:
                raise IntegrationError(f"{self._path}: {name}: there is no platform {entry.platform!r}.")
        return entries


def _rename_table(document: tomlkit.TOMLDocument, name: str, new_name: str) -> None:
    """Rename a table of a TOML document where it stands, so that the comments around it keep their place."""
    for position, (key, table) in enumerate(document.body):
        if key is not None and key.key == name:
            document.body[position] = (tomlkit.key(new_name), table)
            if isinstance(table, Table):
                table.invalidate_display_name()


def _renewal_hint(integration: Integration) -> str:
    """Return how to give an integration another key or other tokens."""
    if integration.is_app:
        return f"To authorize it again: recoup connect --app --name {integration.name}"
    if not integration.key_source.startswith(_SECRETS_PREFIX):
        return f"To give it another key, change {integration.key_source}."
    return f"To give it another key: recoup integrations set-key {integration.platform or integration.name}"
