"""The settings: .env.example and the README describe them as the code does, and wrong values are explained."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestration.config.settings import PROJECT_ROOT, Settings

DATA_DIR_SHOWN = "data/"


SECRETS = {name.upper() for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}


def described() -> dict[str, tuple[str, str]]:
    """Return the default and the meaning of each variable, as the code has them."""
    found = {}
    for name, field in Settings.model_fields.items():
        default = DATA_DIR_SHOWN if name == "recoup_data_dir" else field.get_default(call_default_factory=True)
        found[name.upper()] = ("none" if default in (None, {}) else str(default), str(field.description))
    return found


def test_the_readme_lists_every_variable_with_its_default_and_meaning() -> None:
    readme = (PROJECT_ROOT / "orchestration" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z_]+)` \| `?([^`|]+?)`? \| (.+) \|$", readme, re.M)
    assert {name: (default, meaning.replace("`", "")) for name, default, meaning in rows} == described()


def test_the_example_lists_every_variable_with_its_default_and_meaning() -> None:
    text = (PROJECT_ROOT / ".env.example").read_text(encoding="utf-8")
    found = {}
    for block in text.split("\n\n")[1:]:
        *comments, setting = block.strip().splitlines()
        name, _, value = setting.partition("=")
        meaning = " ".join(line.removeprefix("# ") for line in comments)
        found[name] = (value or "none", meaning)
    expected = described()
    expected["RECOUP_DATA_DIR"] = ("none", expected["RECOUP_DATA_DIR"][1] + " Default: data/ in the project's folder.")
    assert found == expected


def test_the_example_file_holds_only_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", PROJECT_ROOT / ".env.example")
    from_example = Settings()
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    assert from_example == Settings()


def test_a_dot_env_file_is_read_and_the_environment_takes_precedence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holding_secrets: set[Path]
) -> None:
    holding_secrets.add(tmp_path / ".env")
    (tmp_path / ".env").write_text("STRIPE_API_KEY=rk_test_from_file\nSTRIPE_API_BASE=http://127.0.0.1:1/\n")
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    monkeypatch.setenv("STRIPE_API_BASE", "http://127.0.0.1:2")
    settings = Settings()
    assert settings.stripe_api_key is not None
    assert settings.stripe_api_key.get_secret_value() == "rk_test_from_file"
    assert settings.stripe_api_base == "http://127.0.0.1:2"


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("STRIPE_API_KEY", "pk_live_abc", "This is a publishable key"),
        ("STRIPE_API_KEY", "whsec_abc", "the signing secret of a webhook endpoint"),
        ("STRIPE_API_KEYS__SHOP", "pk_live_abc", "shop: This is a publishable key"),
        ("STRIPE_WEBHOOK_SECRETS__SHOP", "sk_live_abc", "shop: This is a secret API key"),
        ("STRIPE_API_BASE", "api.stripe.com", "give an address"),
        ("STRIPE_API_BASE", "ftp://api.stripe.com", "give an address"),
        ("STRIPE_ACCOUNT_ID", "1234", "acct_"),
        ("RECOUP_UI_HOSTS", "https://recoup.example.com", "give hosts such as recoup.example.com"),
        ("RECOUP_UI_HOSTS", "recoup.example.com,*", "not *"),
        ("RECOUP_UI_HOSTS", "recoup.example.com/ui", "give hosts"),
        ("STRIPE_APP_CLIENT_ID", "sk_live_abc", "client id (ca_…)"),
        ("STRIPE_APP_CLIENT_ID", "https://marketplace.stripe.com/oauth/v2/authorize", "client id (ca_…)"),
        ("STRIPE_APP_SECRET_KEY", "rk_live_abc", "This is a restricted API key"),
        ("STRIPE_WEBHOOK_SECRET", "sk_live_abc", "This is a secret API key"),
        ("STRIPE_WEBHOOK_SECRET", "we_1Nabc", "the id of a webhook endpoint"),
        ("RECOUP_WEBHOOK_EVENTS", "succeeded", "give event types such as payment_intent.succeeded"),
        ("RECOUP_WEBHOOK_EVENTS", " , ", "give event types such as payment_intent.succeeded"),
        ("RECOUP_WEBHOOK_BASE_URL", "hooks.example.com", "give an address"),
        ("RECOUP_WEBHOOK_BASE_URL", "https://hooks.example.com:99999", "give an address"),
        ("RECOUP_WEBHOOK_BASE_URL", "https://me:geheim@hooks.example.com", "without ?, # or a user"),
        ("RECOUP_QUEUE_URL", "mysql://recoup:geheim@db/queue", "postgresql+psycopg://"),
        ("RECOUP_EVENT_BUS_KEY", "too short", "at least 24 characters"),
        ("RECOUP_SYNC_CRON", "hourly", "cron expression"),
        ("RECOUP_SYNC_CRON", "* * * *", "cron expression"),
    ],
)
def test_a_wrong_value_is_refused_with_a_sentence_that_never_repeats_a_key(
    variable: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    (problem,) = refused.value.errors(include_input=False)
    assert sentence in problem["msg"]
    assert variable.partition("__")[0] not in SECRETS or value not in str(refused.value)


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "rk_live_very_secret")
    settings: Any = Settings()
    for shown in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert "very_secret" not in shown


def test_whitespace_around_a_key_and_empty_values_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", " rk_live_abc \n")
    monkeypatch.setenv("STRIPE_ACCOUNT_ID", "")
    settings = Settings()
    assert settings.stripe_api_key is not None
    assert settings.stripe_api_key.get_secret_value() == "rk_live_abc"
    assert settings.stripe_account_id is None


def test_a_relative_data_folder_becomes_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECOUP_DATA_DIR", "state")
    assert Settings().warehouse_path == tmp_path / "state" / "warehouse.duckdb"


@pytest.mark.parametrize(
    ("client_id", "base", "page"),
    [
        ("ca_1", "https://api.stripe.com", "https://marketplace.stripe.com/oauth/v2/authorize"),
        ("ca_1", "http://127.0.0.1:12111", "http://127.0.0.1:12111/oauth/v2/authorize"),
        (
            "https://marketplace.stripe.com/oauth/v2/chnlink_61a/authorize?client_id=ca_1&redirect_uri=https://x.example",
            "https://api.stripe.com",
            "https://marketplace.stripe.com/oauth/v2/chnlink_61a/authorize",
        ),
    ],
)
def test_an_app_is_configured_by_its_id_or_its_install_link(client_id: str, base: str, page: str) -> None:
    settings = Settings(stripe_app_client_id=client_id, stripe_api_base=base)
    assert (settings.app_client_id, settings.app_page) == ("ca_1", page)


@pytest.mark.parametrize(
    ("value", "hosts"),
    [
        ("Recoup.Example.com, localhost:8080 ,", {"recoup.example.com", "localhost:8080"}),
        ("[fd00::1]:3000", {"[fd00::1]:3000"}),
        (" ", set()),
        (None, set()),
    ],
)
def test_hosts_of_the_ui_are_split_at_commas_and_lowercased(value: str | None, hosts: set[str]) -> None:
    assert Settings(recoup_ui_hosts=value).ui_hosts == hosts


def test_the_value_sqlite_overrides_a_queue_database_set_in_dot_env(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("RECOUP_QUEUE_URL=postgresql://db/queue\n")
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    assert Settings().queue_url == "postgresql+psycopg://db/queue"
    monkeypatch.setenv("RECOUP_QUEUE_URL", "sqlite")
    assert Settings().queue_url == f"sqlite:///{Settings().queue_path}"
