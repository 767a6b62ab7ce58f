"""What an integration is: a name, a Stripe account, its API key, and the webhook endpoint where its events come in.

STRIPE_API_KEY alone is one, called `default`. Named ones stand in `data/integrations.toml`, which holds no secret;
their keys come from the environment (STRIPE_API_KEYS__SHOP), else from files that only their owner may read.
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

from orchestration.base.errors import RecoupError
from orchestration.base.files import read_secret, write_secret
from orchestration.base.locks import exclusive_lock
from orchestration.config.credentials import SecretRefused, parse_api_key, reject_credentials
from orchestration.config.settings import DEFAULT_INTEGRATION, Settings

ACCOUNT_ID: Final = r"^acct_\w+$"

_NAME: Final = re.compile(r"(?=.{1,64}$)[a-z][a-z0-9]*(_[a-z0-9]+)*")
"""No two _ in a row: in a variable they stand between the setting and the name."""

_MISTAKES: Final = {
    "model_type": "it should be a table, such as [shop]",
    "extra_forbidden": "there is no such setting",
    "list_type": "it should be a list, such as ['acct_1A*']",
    "bool_parsing": "it should be true or false",
    "string_type": "it should be a text in quotation marks",
    "string_pattern_mismatch": "it should look like acct_…",
}
"""Our words for what pydantic finds wrong with the file."""


_OWN_FILES: Final = "secrets/"
"""How `key_source` begins where the key is in a file of ours."""


class IntegrationError(RecoupError):
    """An integration is not there, is there already, or cannot be read. The text says which, and what to do."""


@dataclass(frozen=True)
class Integration:
    """A Stripe account as Recoup knows it. `account_id` and `livemode` are None until Stripe has told them.

    `key_source` names the variable or the file that the key is from, for messages. `connected` are patterns of a Connect
    platform: which of its connected accounts are integrations, too. `platform` is, for such a one, the integration with
    whose key it is read. An account that has authorized the Stripe App (`is_app`) has no key here, but tokens
    (`oauth_tokens`).
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


class _Entry(BaseModel):
    """An integration's table in the file."""

    model_config = ConfigDict(extra="forbid")

    description: str = ""
    account_id: str | None = Field(default=None, pattern=ACCOUNT_ID)
    livemode: bool | None = None
    connected: list[str] = []
    platform: str | None = None
    is_app: bool = False


_ENTRIES: Final = TypeAdapter(dict[str, _Entry])


def check_name(name: str) -> str:
    """The name, if an integration may have it: it is a partition in Dagster, a variable's end and a folder's name.

    Raises:
        IntegrationError: it may not.
        SecretRefused: it looks like a key.
    """
    reject_credentials(name, "The name")
    if name == DEFAULT_INTEGRATION:
        raise IntegrationError("`default` is the integration of STRIPE_API_KEY. Choose another name.")
    if not _NAME.fullmatch(name):
        raise IntegrationError(
            "A name has small letters and digits, begins with a letter, may have single _ in between, and is no longer "
            "than 64 of them, such as shop_eu."
        )
    return name


def already_connected_error(other: Integration, how: str) -> IntegrationError:
    """Why another integration cannot be connected beside this one, and what to do instead."""
    text = f"Integration {other.name!r} ({other.key_source}) {how} already."
    if other.name == DEFAULT_INTEGRATION:
        return IntegrationError(text)
    return IntegrationError(f"{text} {_renewal(other)}")


class Integrations:
    """The integrations of a data folder.

    Raises:
        IntegrationError: `integrations.toml` is not as Recoup writes it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.integrations_path
        self._entries = self._checked(self._tables())

    def all(self) -> Sequence[Integration]:
        """`default` first, if STRIPE_API_KEY is set, then the named ones in the file's order."""
        named = [self._named(name, entry) for name, entry in self._entries.items()]
        return [self._default(), *named] if self._settings.stripe_api_key else named

    def named(self, name: str) -> Integration:
        """The integration of that name; `default` is there also without a key.

        Raises:
            IntegrationError: there is none.
        """
        if name == DEFAULT_INTEGRATION:
            return self._default()
        if name not in self._entries:
            known = ", ".join(each.name for each in self.all()) or "none yet; `recoup connect` makes one"
            raise IntegrationError(f"There is no integration {name!r}. There are: {known}.")
        return self._named(name, self._entries[name])

    def add(self, integration: Integration) -> None:
        """Keep a new one, its key, if it has one, in a file.

        Raises:
            IntegrationError: its name or its account is taken.
        """
        entry = _Entry.model_validate(integration, from_attributes=True)
        with self._changed() as document:
            self.check_new_name(integration.name)
            self.check_account(integration)
            document[integration.name] = {"description": entry.description} | entry.model_dump(exclude_defaults=True)
            if integration.platform is None and integration.api_key is not None:
                self.delete_secrets(integration.name)
                write_secret(self._key_path(integration.name), integration.api_key.get_secret_value())

    def accounts(self) -> Mapping[str, str | None]:
        """The account of each, as far as it is known. No key is read for it."""
        named = {name: entry.account_id for name, entry in self._entries.items()}
        return {DEFAULT_INTEGRATION: self._settings.stripe_account_id, **named}

    def check_new_name(self, name: str) -> str:
        """The name, if a new integration may have it.

        Raises:
            IntegrationError: it may not, or there is one of that name.
        """
        if name in self._entries:
            raise IntegrationError(
                f"There is an integration {name!r} already. Choose another name, or give it another key: "
                f"recoup integrations set-key {name}"
            )
        return check_name(name)

    def connected_accounts(self, name: str) -> Sequence[Integration]:
        """The connected accounts that are read with this integration's key."""
        return [each for each in self.all() if each.platform == name]

    def set_connected(self, name: str, patterns: Sequence[str]) -> None:
        """Keep which of a platform's connected accounts are to be integrations.

        Raises:
            IntegrationError: there is no such integration.
        """
        with self._changed() as document:
            self.require_named(name)
            document[name]["connected"] = list(patterns)

    def check_account(self, integration: Integration) -> None:
        """Raises IntegrationError where another integration is of the same account and mode, or has the same key."""
        for other in self.all():
            is_own_key = other.api_key is not None and {other.platform, integration.platform} == {None}
            is_same_key = is_own_key and other.api_key == integration.api_key
            is_same_account = other.account_id is not None and (
                (other.account_id, other.livemode) == (integration.account_id, integration.livemode)
            )
            if other.name != integration.name and (is_same_key or is_same_account):
                raise already_connected_error(other, "is read with this key" if is_same_key else "reads this account")

    def set_account(self, name: str, account_id: str, *, livemode: bool) -> None:
        """Keep whose an integration is, once Stripe has told it: another account's key is refused from then on.

        Raises:
            IntegrationError: another integration reads this account and mode.
        """
        known = self.named(name)
        if name == DEFAULT_INTEGRATION or (known.account_id, known.livemode) == (account_id, livemode):
            return
        with self._changed() as document:
            self.require_named(name)
            self.check_account(replace(known, account_id=account_id, livemode=livemode))
            document[name].update({"account_id": account_id, "livemode": livemode})

    def set_key(self, name: str, key: SecretStr) -> None:
        """Keep another key of an integration's account.

        Raises:
            IntegrationError: there is no such integration, it has none, or its key is set in the environment.
        """
        self.require_own_key(name)
        write_secret(self._key_path(name), key.get_secret_value())

    def require_own_key(self, name: str) -> Integration:
        """The integration of that name, if its key is kept in a file of ours.

        Raises:
            IntegrationError: there is no such integration, it has no key, or its key is a platform's or is set in the
            environment.
        """
        integration = self.named(name)
        if integration.platform is not None:
            raise IntegrationError(
                f"{name!r} is read with the key of its platform: recoup integrations set-key {integration.platform}"
            )
        if integration.is_app:
            raise IntegrationError(f"{name!r} has no key: it is read by the Stripe App. {_renewal(integration)}")
        if integration.key_source != self._shown(self._key_path(name)):
            raise IntegrationError(f"The key of {name!r} is set by {integration.key_source}. Change it there.")
        return integration

    def rename(self, name: str, new_name: str) -> None:
        """Call an integration by another name. Its tables, its webhook's address and its secrets stay.

        Raises:
            IntegrationError: there is none of the name, or one of the new name already.
        """
        self.require_named(name)
        old, new = self._settings.secrets_dir / name, self._settings.secrets_dir / new_name
        with self._changed() as document, self._tokens_held(name):
            self.require_named(name)
            self.check_new_name(new_name)
            for place, (key, table) in enumerate(document.body):  # in place, so that comments stay where they are
                if key is not None and key.key == name:
                    document.body[place] = (tomlkit.key(new_name), table)
                    if isinstance(table, Table):
                        table.invalidate_display_name()
            for connected in self.connected_accounts(name):
                document[connected.name]["platform"] = new_name
            self.delete_secrets(new_name)
            if old.exists():  # copied, so that each name has its secrets whenever this is stopped
                shutil.copytree(old, new)
        self.delete_secrets(name)

    def _tokens_held(self, name: str) -> AbstractContextManager[None]:
        """Nobody renews the tokens of an app's integration meanwhile: what Stripe gives them would be lost."""
        path = tokens_path(self._settings, name)
        return exclusive_lock(path.with_suffix(".lock")) if path.exists() else nullcontext()

    def remove(self, name: str) -> None:
        """Forget an integration, its secrets, and the connected accounts that are read with its key. What was read of
        them stays in the tables.

        Raises:
            IntegrationError: there is none of the name.
        """
        with self._changed() as document:
            self.require_named(name)
            forgotten = (name, *(connected.name for connected in self.connected_accounts(name)))
            for each in forgotten:
                document.remove(each)
        for each in forgotten:
            self.delete_secrets(each)

    def delete_secrets(self, name: str) -> None:
        """Of what is not an integration, or no longer: such as those of one that was taken out of the file by hand."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._settings.secrets_dir / name)

    def require_named(self, name: str) -> None:
        """Check that an integration can be renamed or removed.

        Raises:
            IntegrationError: there is none of the name, or it is that of STRIPE_API_KEY.
        """
        if name == DEFAULT_INTEGRATION:
            raise IntegrationError("`default` is the integration of STRIPE_API_KEY: change the variable instead.")
        self.named(name)

    def _default(self) -> Integration:
        return Integration(
            DEFAULT_INTEGRATION,
            self._settings.stripe_api_key,
            "STRIPE_API_KEY",
            account_id=self._settings.stripe_account_id,
        )

    def _named(self, name: str, entry: _Entry) -> Integration:
        if entry.platform is not None:
            platform = self.named(entry.platform)
            return replace(platform, name=name, **entry.model_dump())
        if entry.is_app:
            key_source = self._shown(tokens_path(self._settings, name))
            return Integration(name, None, key_source, **entry.model_dump())
        set_key = self._settings.stripe_api_keys.get(name)
        stored = None
        with suppress(OSError, UnicodeDecodeError, SecretRefused):  # as if it were not there: the others go on
            stored = parse_api_key(read_secret(self._key_path(name)) or "")
        return Integration(
            name,
            set_key or stored,
            self._settings.api_key_source(name) if set_key else self._shown(self._key_path(name)),
            **entry.model_dump(),
        )

    def _key_path(self, name: str) -> Path:
        return self._settings.secrets_dir / name / "api_key"

    def _shown(self, path: Path) -> str:
        return str(path.relative_to(self._settings.recoup_data_dir))

    def _document(self) -> tomlkit.TOMLDocument:
        try:
            return tomlkit.parse(self._path.read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            return tomlkit.document()
        except (TOMLKitError, UnicodeDecodeError, RecursionError) as error:
            raise IntegrationError(f"{self._path} is not TOML: {error}") from None

    def _tables(self) -> Mapping[str, object]:
        """What the file holds, by the parser that is ten times as fast; the other one says better what is wrong."""
        try:
            return tomllib.loads(self._path.read_text(encoding="utf-8-sig"))
        except (FileNotFoundError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
            return self._document().unwrap()

    def _checked(self, tables: Mapping[str, object]) -> Mapping[str, _Entry]:
        try:
            entries = _ENTRIES.validate_python(tables)
        except ValidationError as error:
            places = "; ".join(
                f"{'.'.join(map(str, each['loc']))}: {_MISTAKES.get(each['type'], each['msg'])}"
                for each in error.errors()
            )
            raise IntegrationError(f"{self._path} cannot be used: {places}") from None
        for name, entry in entries.items():
            if name == DEFAULT_INTEGRATION or not _NAME.fullmatch(name):
                raise IntegrationError(f"{self._path}: {name!r} is no name for an integration (such as shop_eu).")
            if entry.platform is not None and entries.get(entry.platform, entry).platform is not None:
                raise IntegrationError(f"{self._path}: {name}: there is no platform {entry.platform!r}.")
        return entries

    @contextmanager
    def _changed(self) -> Iterator[tomlkit.TOMLDocument]:
        """The file as it is now, to be changed by one process at a time, and put in its place when the context ends."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(self._path.with_name(f".{self._path.name}.lock")):
            document = self._document()
            self._entries = self._checked(document.unwrap())
            yield document
            text = tomlkit.dumps(document)
            self._entries = self._checked(self._parsed_again(text).unwrap())
            write_secret(self._path, text.rstrip("\n"))

    def _parsed_again(self, text: str) -> tomlkit.TOMLDocument:
        try:
            return tomlkit.parse(text)
        except TOMLKitError:
            raise IntegrationError(
                f"{self._path} is written in a way that cannot be changed here. Give each integration a table of its "
                "own, such as [shop], with a line for each of its settings."
            ) from None


def tokens_path(settings: Settings, name: str) -> Path:
    """The file with the tokens of an integration that authorized the Stripe App."""
    return settings.secrets_dir / name / "oauth.json"


def _renewal(integration: Integration) -> str:
    """How an integration goes on with another key, or with other tokens."""
    if integration.is_app:
        return f"To authorize it again: recoup connect --app --name {integration.name}"
    if not integration.key_source.startswith(_OWN_FILES):
        return f"To give it another key, change {integration.key_source}."
    return f"To give it another key: recoup integrations set-key {integration.platform or integration.name}"
