"""The registry of integrations: the file `integrations.toml`, and where each key comes from."""

import os
import re
import shutil
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from orchestration.accounts.registry import Integration, IntegrationError, Integrations
from orchestration.config.settings import Settings
from orchestration.setup.registry import make_integrations, make_webhook_endpoints
from orchestration.webhooks.endpoint import WebhookEndpoint

KEYS = {name: SecretStr(f"rk_test_of_{name}_51HabcXYZ") for name in ("shop", "club", "other")}
ACCOUNTS = {"shop": "acct_1Shop", "club": "acct_1Club", "other": "acct_1Other"}

Make = Callable[..., Integrations]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that opens the registry in the test's folder with the given settings."""
    return lambda **environment: make_integrations(Settings(recoup_data_dir=tmp_path / "data", **environment))


def enabled_endpoints(settings: Settings) -> Sequence[WebhookEndpoint]:
    return make_webhook_endpoints(settings).enabled(make_integrations(settings))


def integration(name: str, **changed: object) -> Integration:
    fields = {"api_key": KEYS[name], "key_source": "what was pasted", "account_id": ACCOUNTS[name], "livemode": False}
    return Integration(name, **fields | changed)  # type: ignore[arg-type]


@pytest.fixture
def two(make: Make) -> Integrations:
    registry = make()
    registry.add(integration("shop", description="The [shop], “quoted”"))
    registry.add(integration("club", livemode=True))
    return registry


def key_of(found: Integration) -> str:
    assert found.api_key is not None
    return found.api_key.get_secret_value()


def test_added_integrations_are_listed_in_order_and_the_file_holds_no_key(
    make: Make, two: Integrations, tmp_path: Path
) -> None:
    there = make().all()
    assert there == two.all()
    assert [(each.name, each.account_id, each.livemode, each.description) for each in there] == [
        ("shop", "acct_1Shop", False, "The [shop], “quoted”"),
        ("club", "acct_1Club", True, ""),
    ]
    assert [each.api_key for each in there] == [KEYS["shop"], KEYS["club"]]
    assert "rk_test_" not in (tmp_path / "data" / "integrations.toml").read_text()


def test_the_integration_of_stripe_api_key_is_listed_first(make: Make, two: Integrations) -> None:
    registry = make(stripe_api_key=SecretStr("rk_test_51Habc"))
    assert [each.name for each in registry.all()] == ["default", "shop", "club"]
    assert registry.named("default").key_source == "STRIPE_API_KEY"
    assert make().named("default").api_key is None


def test_only_the_owner_can_read_the_files_of_secrets(two: Integrations, tmp_path: Path) -> None:
    modes = {
        str(path.relative_to(tmp_path / "data")): stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "data" / "secrets", *(tmp_path / "data" / "secrets").rglob("*"))
    }
    assert modes == {
        "secrets": 0o700,
        "secrets/shop": 0o700,
        "secrets/shop/api_key": 0o600,
        "secrets/club": 0o700,
        "secrets/club/api_key": 0o600,
    }


@pytest.mark.parametrize(
    ("added", "sentence"),
    [
        (integration("other", account_id="acct_1Shop"), "Integration 'shop' (secrets/shop/api_key) reads this account"),
        (integration("other", api_key=KEYS["club"]), "Integration 'club' (secrets/club/api_key) is read with this key"),
        (integration("shop"), "There is an integration 'shop' already."),
    ],
)
def test_an_account_key_or_name_that_is_in_use_is_refused_naming_its_integration(
    added: Integration, sentence: str, two: Integrations, tmp_path: Path
) -> None:
    before = (tmp_path / "data" / "integrations.toml").read_text()
    with pytest.raises(IntegrationError) as refused:
        two.add(added)
    assert str(refused.value).startswith(sentence)
    assert (tmp_path / "data" / "integrations.toml").read_text() == before
    assert not (tmp_path / "data" / "secrets" / "other").exists()


def test_an_integration_that_another_process_added_meanwhile_is_not_overwritten(make: Make, two: Integrations) -> None:
    slow = make()
    two.add(integration("other"))
    with pytest.raises(IntegrationError, match="There is an integration 'other' already"):
        slow.add(integration("other", account_id="acct_1Another", api_key=SecretStr("rk_test_51HabcZZZ")))
    assert make().named("other").account_id == "acct_1Other"


def test_test_mode_and_live_mode_of_an_account_are_two_integrations(make: Make, two: Integrations) -> None:
    two.add(integration("other", account_id="acct_1Shop", livemode=True))
    assert len(make().all()) == 3


def test_integrations_without_a_known_account_are_not_confused(make: Make) -> None:
    registry = make()
    for name in KEYS:
        registry.add(integration(name, account_id=None))
    assert [each.account_id for each in registry.all()] == [None] * 3


@pytest.mark.parametrize(
    "name", ["", "Shop", "shop eu", "shop-eu", "2shops", "../shop", "a" * 65, "shop__eu", "shop_", "s\n", "default"]
)
def test_an_invalid_name_is_refused_with_a_valid_example(name: str, make: Make, two: Integrations) -> None:
    registry = make()
    for change in (
        lambda: registry.add(Integration(name, KEYS["other"], "what was pasted")),
        lambda: registry.rename("shop", name),
    ):
        with pytest.raises(IntegrationError, match=r"such as shop_eu|Choose another name"):
            change()
    assert [each.name for each in make().all()] == ["shop", "club"]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (b"[shop\n", "is not TOML: Unexpected character: '\\n' at line 1 col 5"),
        (b"[shop]\n[shop]\n", 'is not TOML: Key "shop" already exists. at line 2 col 0'),
        (b"\xff\xfe[shop]", "is not TOML: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"shop = 3\n", "cannot be used: shop: must be a table, such as [shop]"),
        (b"[shop]\ncolour = 'red'\n", "cannot be used: shop.colour: there is no such setting"),
        (b"[shop]\naccount_id = '1Shop'\n", "cannot be used: shop.account_id: must look like acct_…"),
        (
            b"[shop]\nlivemode = 'perhaps'\n",
            "cannot be used: shop.livemode: must be true or false",
        ),
        (b"['Shop EU']\n", "'Shop EU' is not a valid name (such as shop_eu)."),
        (b"[default]\n", "'default' is not a valid name (such as shop_eu)."),
    ],
)
def test_an_invalid_file_is_reported_with_its_fault(damage: bytes, sentence: str, make: Make, tmp_path: Path) -> None:
    path = tmp_path / "data" / "integrations.toml"
    path.parent.mkdir()
    path.write_bytes(damage)
    with pytest.raises(IntegrationError) as refused:
        make().all()
    assert str(refused.value) in (f"{path} {sentence}", f"{path}: {sentence}")


def test_a_key_in_the_file_of_integrations_is_refused_and_not_repeated(
    make: Make, tmp_path: Path, holding_secrets: set[Path]
) -> None:
    path = tmp_path / "data" / "integrations.toml"
    path.parent.mkdir()
    holding_secrets.add(path)
    path.write_text(f"[shop]\napi_key = '{key_of(integration('shop'))}'\n")
    with pytest.raises(IntegrationError) as refused:
        make().all()
    assert str(refused.value) == f"{path} cannot be used: shop.api_key: there is no such setting"


def test_comments_in_the_file_survive_every_change(make: Make, two: Integrations, tmp_path: Path) -> None:
    path = tmp_path / "data" / "integrations.toml"
    path.write_text(
        "# Ask Ann before you change this.\n\n" + path.read_text().replace("[club]", "# Ours.\n[club]  # theirs")
    )
    registry = make()
    registry.add(integration("other"))
    registry.rename("shop", "store")
    registry.remove("other")
    assert [each.name for each in make().all()] == ["store", "club"]
    lines = path.read_text().splitlines()
    assert lines[0] == "# Ask Ann before you change this."
    assert lines[lines.index("[club]  # theirs") - 1] == "# Ours."


def test_an_empty_table_is_an_integration(make: Make, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "integrations.toml").write_text("[shop]\n")
    (found,) = make(stripe_api_keys={"shop": KEYS["shop"]}).all()
    assert (found.name, found.account_id, found.livemode, found.api_key) == ("shop", None, None, KEYS["shop"])


def test_a_renamed_integration_keeps_its_position_key_and_webhook_endpoint(
    make: Make, two: Integrations, tmp_path: Path
) -> None:
    settings = Settings(recoup_data_dir=tmp_path / "data")
    files = make_webhook_endpoints(settings).files("shop")
    files.set_secret("whsec_" + "a" * 32)
    before, endpoint = two.named("shop"), files.enable()
    two.rename("shop", "store")
    assert [each.name for each in make().all()] == ["store", "club"]
    after = make().named("store")
    assert (after.api_key, after.account_id, after.description) == (
        before.api_key,
        before.account_id,
        before.description,
    )
    (found,) = enabled_endpoints(settings)
    assert (found.integration, found.token, found.secrets) == ("store", endpoint.token, endpoint.secrets)
    with pytest.raises(IntegrationError, match=r"There is no integration 'shop'\. There are: store, club"):
        make().named("shop")
    with pytest.raises(IntegrationError, match="There is an integration 'club' already"):
        make().rename("store", "club")


def test_an_interrupted_rename_loses_no_secret_and_can_be_repeated(
    make: Make, two: Integrations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Died

    for module, function in ((shutil, "copytree"), (os, "replace"), (shutil, "rmtree")):
        with monkeypatch.context() as patched, suppress(Died):
            patched.setattr(module, function, die)
            make().rename("shop", "store")
        for name in {"shop", "store"} & {each.name for each in make().all()}:
            assert key_of(make().named(name)) == key_of(integration("shop"))
    remove = shutil.rmtree

    def die_before_the_old_ones_go(path: Path) -> None:
        if path.name == "shop":
            raise Died
        remove(path)

    with monkeypatch.context() as patched, suppress(Died):
        patched.setattr(shutil, "rmtree", die_before_the_old_ones_go)
        make().rename("shop", "store")
    assert [each.name for each in make().all()] == ["store", "club"]
    assert key_of(make().named("store")) == key_of(integration("shop"))


def test_of_endpoints_with_one_token_that_of_the_connected_integration_is_listed_last(
    two: Integrations, tmp_path: Path
) -> None:
    settings = Settings(recoup_data_dir=tmp_path / "data")
    make_webhook_endpoints(settings).files("shop").enable()
    for left in ("apple", "zebra"):
        shutil.copytree(settings.secrets_dir / "shop", settings.secrets_dir / left)
    assert [each.integration for each in enabled_endpoints(settings)] == [
        "apple",
        "zebra",
        "shop",
    ]


def test_a_removal_that_fails_to_write_the_file_keeps_the_key(
    make: Make, two: Integrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        with pytest.raises(PermissionError):
            make().remove("shop")
    assert key_of(make().named("shop")) == key_of(integration("shop"))


def test_concurrent_changes_are_all_kept(make: Make) -> None:
    numbers = range(12)
    with ThreadPoolExecutor(len(numbers)) as pool:
        for number in numbers:
            added = Integration(f"shop_{number}", SecretStr(f"rk_test_of_shop{number}_51HabcXYZ"), "")
            pool.submit(make().add, added)
    assert sorted(each.name for each in make().all()) == sorted(f"shop_{number}" for number in numbers)
    with ThreadPoolExecutor(len(numbers)) as pool:
        for number in numbers:
            pool.submit(make().set_account, f"shop_{number}", f"acct_{number}", livemode=False)
    assert {each.account_id for each in make().all()} == {f"acct_{number}" for number in numbers}


def test_a_file_from_windows_is_read_and_a_file_with_dotted_keys_is_left_unchanged(
    make: Make, two: Integrations, tmp_path: Path
) -> None:
    path = tmp_path / "data" / "integrations.toml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    (tmp_path / "data" / "secrets" / "shop" / "api_key").write_bytes(
        b"\xef\xbb\xbf" + KEYS["shop"].get_secret_value().encode()
    )
    assert [key_of(each) for each in make().all()] == [key_of(integration("shop")), key_of(integration("club"))]
    dotted = 'shop.description = "x"\nshop.livemode = false\n'
    path.write_text(dotted)
    with pytest.raises(IntegrationError, match="cannot change"):
        make().rename("shop", "store")
    assert path.read_text() == dotted


def test_an_endpoint_has_the_account_id_of_its_integration(make: Make, two: Integrations, tmp_path: Path) -> None:
    settings = Settings(recoup_data_dir=tmp_path / "data")
    make_webhook_endpoints(settings).files("shop").enable()
    assert [each.account_id for each in enabled_endpoints(settings)] == ["acct_1Shop"]
    settings.integrations_path.write_text("not TOML")
    assert [each.account_id for each in enabled_endpoints(settings)] == [None], "the endpoint is still served"


def test_a_removed_integration_leaves_no_secret(make: Make, two: Integrations, tmp_path: Path) -> None:
    settings = Settings(recoup_data_dir=tmp_path / "data")
    make_webhook_endpoints(settings).files("shop").enable()
    two.remove("shop")
    assert [each.name for each in make().all()] == ["club"]
    assert not (tmp_path / "data" / "secrets" / "shop").exists()
    assert enabled_endpoints(settings) == []
    for name in ("shop", "default"):
        with pytest.raises(IntegrationError):
            make().remove(name)


def test_a_key_in_the_environment_takes_precedence_over_a_file_and_cannot_be_replaced(
    make: Make, two: Integrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_API_KEYS__SHOP", " rk_test_of_the_environment\n")
    registry = make()
    found = registry.named("shop")
    assert (key_of(found), found.key_source) == ("rk_test_of_the_environment", "STRIPE_API_KEYS__SHOP")
    assert registry.named("club").key_source == "secrets/club/api_key"
    with pytest.raises(IntegrationError, match=r"The key of 'shop' is set by STRIPE_API_KEYS__SHOP\. Change it there"):
        registry.set_key("shop", KEYS["other"])


def test_keys_can_be_mounted_files_and_the_environment_takes_precedence_over_them(
    make: Make, two: Integrations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = tmp_path / "secrets" / "mounted"
    (mounted / "..2026_01").mkdir(parents=True)
    (mounted / "..data").symlink_to("..2026_01")
    for name, key in {"stripe_api_key": "rk_test_of_default", "stripe_api_keys__shop": "rk_test_of_shop"}.items():
        (mounted / "..2026_01" / name).write_text(f"{key}\n")
        (mounted / name).symlink_to(f"..data/{name}")
    monkeypatch.setenv("RECOUP_SECRETS_DIR", str(mounted))
    assert [key_of(each) for each in make().all()] == [
        "rk_test_of_default",
        "rk_test_of_shop",
        key_of(two.named("club")),
    ]
    monkeypatch.setenv("STRIPE_API_KEYS__SHOP", "rk_test_of_the_environment")
    monkeypatch.setenv("STRIPE_API_KEYS__CLUB", "rk_test_of_the_club")
    assert [key_of(each) for each in make().all()] == [
        "rk_test_of_default",
        "rk_test_of_the_environment",
        "rk_test_of_the_club",
    ]


def test_a_new_key_replaces_the_old_one(make: Make, two: Integrations, tmp_path: Path) -> None:
    two.set_key("shop", KEYS["other"])
    assert key_of(make().named("shop")) == key_of(integration("other"))
    assert [path.name for path in (tmp_path / "data" / "secrets" / "shop").iterdir()] == ["api_key"]


@pytest.fixture
def market(two: Integrations) -> Integrations:
    """A platform whose connected accounts are read with its key."""
    two.set_connected("shop", ["acct_1C*"])
    for number in (1, 2):
        account = integration("shop", account_id=f"acct_1Connected{number}", platform="shop")
        two.add(replace(account, name=f"shop_{number}"))
    return two


def test_a_connected_account_is_read_with_the_key_of_its_platform(make: Make, market: Integrations) -> None:
    connected = make().connected_accounts("shop")
    assert [(each.name, each.account_id, each.api_key) for each in connected] == [
        ("shop_1", "acct_1Connected1", KEYS["shop"]),
        ("shop_2", "acct_1Connected2", KEYS["shop"]),
    ]
    assert make().named("shop").connected == ["acct_1C*"]
    with pytest.raises(IntegrationError, match="recoup integrations set-key shop"):
        market.set_key("shop_1", KEYS["other"])


def test_connected_accounts_are_renamed_and_removed_with_their_platform(make: Make, market: Integrations) -> None:
    market.rename("shop", "market")
    assert [(each.name, each.api_key) for each in make().connected_accounts("market")] == [
        ("shop_1", KEYS["shop"]),
        ("shop_2", KEYS["shop"]),
    ]
    market.remove("market")
    assert [each.name for each in make().all()] == ["club"]


def test_a_missing_platform_is_an_error(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "data" / "integrations.toml"
    path.parent.mkdir()
    path.write_text('[shop]\naccount_id = "acct_1"\nplatform = "market"\n')
    with pytest.raises(IntegrationError, match="shop: there is no platform 'market'"):
        make().all()


@pytest.mark.parametrize("content", [b"\xff\xfe\x9c garbage", bytes(40), b""], ids=["garbage", "zeroed", "empty"])
def test_a_damaged_file_of_an_endpoint_affects_no_other_endpoint_and_can_be_replaced(
    content: bytes, two: Integrations, tmp_path: Path
) -> None:
    settings = Settings(recoup_data_dir=tmp_path / "data")
    shop, club = (make_webhook_endpoints(settings).files(name) for name in ("shop", "club"))
    shop.enable(), club.enable()
    for name in ("webhook_token", "webhook_secret"):
        (settings.secrets_dir / "shop" / name).write_bytes(content)
    assert [each.integration for each in enabled_endpoints(settings)] == ["club"]
    assert re.fullmatch(r"[\w-]{32}", shop.enable().token.get_secret_value())
    shop.set_secret("whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH")
    assert [len(each.secrets) for each in enabled_endpoints(settings) if each.integration == "shop"] == [1]


def test_a_file_that_is_nested_too_deeply_is_not_toml(make: Make, two: Integrations, tmp_path: Path) -> None:
    (tmp_path / "data" / "integrations.toml").write_text(f"[shop]\nconnected = {'[' * 5000}1{']' * 5000}\n")
    with pytest.raises(IntegrationError, match=r"integrations\.toml is not TOML"):
        make().all()
