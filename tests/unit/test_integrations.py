"""What is connected: the catalog in `integrations.toml`, and where each key is from."""

import os
import re
import shutil
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from orchestration.accounts.registry import Integration, IntegrationError, Integrations
from orchestration.accounts.webhook_endpoints import WebhookFiles, webhook_endpoints
from orchestration.config.settings import Settings

KEYS = {name: SecretStr(f"rk_test_of_{name}_51HabcXYZ") for name in ("shop", "club", "other")}
ACCOUNTS = {"shop": "acct_1Shop", "club": "acct_1Club", "other": "acct_1Other"}

Make = Callable[..., Integrations]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """The catalog of the test's folder, with what the environment says."""
    return lambda **environment: Integrations(Settings(recoup_data_dir=tmp_path / "data", **environment))


def integration(name: str, **changed: object) -> Integration:
    fields = {"api_key": KEYS[name], "key_source": "what was pasted", "account_id": ACCOUNTS[name], "livemode": False}
    return Integration(name, **fields | changed)  # type: ignore[arg-type]


@pytest.fixture
def two(make: Make) -> Integrations:
    catalog = make()
    catalog.add(integration("shop", description="The [shop], “quoted”"))
    catalog.add(integration("club", livemode=True))
    return catalog


def key_of(found: Integration) -> str:
    assert found.api_key is not None
    return found.api_key.get_secret_value()


def test_what_was_added_is_there_in_its_order_and_the_file_holds_no_key(
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


def test_the_integration_of_stripe_api_key_goes_first(make: Make, two: Integrations) -> None:
    catalog = make(stripe_api_key=SecretStr("rk_test_51Habc"))
    assert [each.name for each in catalog.all()] == ["default", "shop", "club"]
    assert catalog.named("default").key_source == "STRIPE_API_KEY"
    assert make().named("default").api_key is None


def test_secrets_are_for_their_owner_only(two: Integrations, tmp_path: Path) -> None:
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
def test_what_is_connected_already_is_refused_with_the_name_of_the_first(
    added: Integration, sentence: str, two: Integrations, tmp_path: Path
) -> None:
    before = (tmp_path / "data" / "integrations.toml").read_text()
    with pytest.raises(IntegrationError) as refused:
        two.add(added)
    assert str(refused.value).startswith(sentence)
    assert (tmp_path / "data" / "integrations.toml").read_text() == before
    assert not (tmp_path / "data" / "secrets" / "other").exists()


def test_what_another_process_added_meanwhile_is_not_overwritten(make: Make, two: Integrations) -> None:
    slow = make()
    two.add(integration("other"))
    with pytest.raises(IntegrationError, match="There is an integration 'other' already"):
        slow.add(integration("other", account_id="acct_1Another", api_key=SecretStr("rk_test_51HabcZZZ")))
    assert make().named("other").account_id == "acct_1Other"


def test_the_other_mode_of_an_account_is_an_integration_of_its_own(make: Make, two: Integrations) -> None:
    two.add(integration("other", account_id="acct_1Shop", livemode=True))
    assert len(make().all()) == 3


def test_accounts_that_are_not_known_yet_are_not_taken_for_one(make: Make) -> None:
    catalog = make()
    for name in KEYS:
        catalog.add(integration(name, account_id=None))
    assert [each.account_id for each in catalog.all()] == [None] * 3


@pytest.mark.parametrize(
    "name", ["", "Shop", "shop eu", "shop-eu", "2shops", "../shop", "a" * 65, "shop__eu", "shop_", "s\n", "default"]
)
def test_a_name_that_may_not_be_is_refused_with_what_may(name: str, make: Make, two: Integrations) -> None:
    catalog = make()
    for change in (
        lambda: catalog.add(Integration(name, KEYS["other"], "what was pasted")),
        lambda: catalog.rename("shop", name),
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
def test_a_damaged_file_is_named_with_the_place(damage: bytes, sentence: str, make: Make, tmp_path: Path) -> None:
    path = tmp_path / "data" / "integrations.toml"
    path.parent.mkdir()
    path.write_bytes(damage)
    with pytest.raises(IntegrationError) as refused:
        make()
    assert str(refused.value) in (f"{path} {sentence}", f"{path}: {sentence}")


def test_a_key_in_the_file_of_integrations_is_refused_and_not_repeated(
    make: Make, tmp_path: Path, holding_secrets: set[Path]
) -> None:
    path = tmp_path / "data" / "integrations.toml"
    path.parent.mkdir()
    holding_secrets.add(path)
    path.write_text(f"[shop]\napi_key = '{key_of(integration('shop'))}'\n")
    with pytest.raises(IntegrationError) as refused:
        make()
    assert str(refused.value) == f"{path} cannot be used: shop.api_key: there is no such setting"


def test_what_people_wrote_into_the_file_stays_when_it_is_written_anew(
    make: Make, two: Integrations, tmp_path: Path
) -> None:
    path = tmp_path / "data" / "integrations.toml"
    path.write_text(
        "# Ask Ann before you change this.\n\n" + path.read_text().replace("[club]", "# Ours.\n[club]  # theirs")
    )
    catalog = make()
    catalog.add(integration("other"))
    catalog.rename("shop", "store")
    catalog.remove("other")
    assert [each.name for each in make().all()] == ["store", "club"]
    told = path.read_text().splitlines()
    assert told[0] == "# Ask Ann before you change this."
    assert told[told.index("[club]  # theirs") - 1] == "# Ours."


def test_a_table_with_nothing_in_it_is_an_integration(make: Make, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "integrations.toml").write_text("[shop]\n")
    (found,) = make(stripe_api_keys={"shop": KEYS["shop"]}).all()
    assert (found.name, found.account_id, found.livemode, found.api_key) == ("shop", None, None, KEYS["shop"])


def test_one_that_is_renamed_keeps_its_place_its_key_and_its_webhook(
    make: Make, two: Integrations, tmp_path: Path
) -> None:
    settings = Settings(recoup_data_dir=tmp_path / "data")
    files = WebhookFiles(settings, "shop")
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
    (found,) = webhook_endpoints(settings)
    assert (found.integration, found.token, found.secrets) == ("store", endpoint.token, endpoint.secrets)
    with pytest.raises(IntegrationError, match=r"There is no integration 'shop'\. There are: store, club"):
        make().named("shop")
    with pytest.raises(IntegrationError, match="There is an integration 'club' already"):
        make().rename("store", "club")


def test_a_rename_that_is_stopped_anywhere_loses_no_secret_and_can_be_done_again(
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


def test_of_a_token_that_is_there_twice_the_endpoint_of_what_is_connected_counts(
    two: Integrations, tmp_path: Path
) -> None:
    settings = Settings(recoup_data_dir=tmp_path / "data")
    WebhookFiles(settings, "shop").enable()
    for left in ("apple", "zebra"):
        shutil.copytree(settings.secrets_dir / "shop", settings.secrets_dir / left)
    assert [each.integration for each in webhook_endpoints(settings)] == ["apple", "zebra", "shop"]


def test_a_removal_that_cannot_be_written_keeps_the_key(
    make: Make, two: Integrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        with pytest.raises(PermissionError):
            make().remove("shop")
    assert key_of(make().named("shop")) == key_of(integration("shop"))


def test_what_several_change_at_one_time_is_all_kept(make: Make) -> None:
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


def test_a_file_that_windows_wrote_is_read_and_one_that_cannot_be_changed_here_stays_as_it_is(
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


def test_an_endpoint_tells_whose_events_it_gets(make: Make, two: Integrations, tmp_path: Path) -> None:
    settings = Settings(recoup_data_dir=tmp_path / "data")
    WebhookFiles(settings, "shop").enable()
    assert [each.account_id for each in webhook_endpoints(settings)] == ["acct_1Shop"]
    settings.integrations_path.write_text("not TOML")
    assert [each.account_id for each in webhook_endpoints(settings)] == [None], "deliveries are taken all the same"


def test_one_that_is_removed_leaves_no_secret(make: Make, two: Integrations, tmp_path: Path) -> None:
    settings = Settings(recoup_data_dir=tmp_path / "data")
    WebhookFiles(settings, "shop").enable()
    two.remove("shop")
    assert [each.name for each in make().all()] == ["club"]
    assert not (tmp_path / "data" / "secrets" / "shop").exists()
    assert webhook_endpoints(settings) == []
    for name in ("shop", "default"):
        with pytest.raises(IntegrationError):
            make().remove(name)


def test_a_key_of_the_environment_goes_before_that_of_a_file_and_cannot_be_changed_here(
    make: Make, two: Integrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_API_KEYS__SHOP", " rk_test_of_the_environment\n")
    catalog = make()
    found = catalog.named("shop")
    assert (key_of(found), found.key_source) == ("rk_test_of_the_environment", "STRIPE_API_KEYS__SHOP")
    assert catalog.named("club").key_source == "secrets/club/api_key"
    with pytest.raises(IntegrationError, match=r"The key of 'shop' is set by STRIPE_API_KEYS__SHOP\. Change it there"):
        catalog.set_key("shop", KEYS["other"])


def test_keys_may_be_files_as_kubernetes_mounts_them_and_the_environment_goes_before_those(
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


def test_another_key_takes_the_place_of_the_one_before(make: Make, two: Integrations, tmp_path: Path) -> None:
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


def test_connected_accounts_follow_their_platform_when_it_is_renamed_and_go_with_it(
    make: Make, market: Integrations
) -> None:
    market.rename("shop", "market")
    assert [(each.name, each.api_key) for each in make().connected_accounts("market")] == [
        ("shop_1", KEYS["shop"]),
        ("shop_2", KEYS["shop"]),
    ]
    market.remove("market")
    assert [each.name for each in make().all()] == ["club"]


def test_a_platform_that_is_not_there_is_told(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "data" / "integrations.toml"
    path.parent.mkdir()
    path.write_text('[shop]\naccount_id = "acct_1"\nplatform = "market"\n')
    with pytest.raises(IntegrationError, match="shop: there is no platform 'market'"):
        make()


@pytest.mark.parametrize("content", [b"\xff\xfe\x9c garbage", bytes(40), b""], ids=["garbage", "zeroed", "empty"])
def test_a_damaged_file_of_an_endpoint_stops_neither_the_others_nor_a_new_start(
    content: bytes, two: Integrations, tmp_path: Path
) -> None:
    settings = Settings(recoup_data_dir=tmp_path / "data")
    shop, club = (WebhookFiles(settings, name) for name in ("shop", "club"))
    shop.enable(), club.enable()
    for name in ("webhook_token", "webhook_secret"):
        (settings.secrets_dir / "shop" / name).write_bytes(content)
    assert [each.integration for each in webhook_endpoints(settings)] == ["club"]
    assert re.fullmatch(r"[\w-]{32}", shop.enable().token.get_secret_value())
    shop.set_secret("whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH")
    assert [len(each.secrets) for each in webhook_endpoints(settings) if each.integration == "shop"] == [1]


def test_a_catalog_that_no_parser_can_read_is_named(make: Make, two: Integrations, tmp_path: Path) -> None:
    (tmp_path / "data" / "integrations.toml").write_text(f"[shop]\nconnected = {'[' * 5000}1{']' * 5000}\n")
    with pytest.raises(IntegrationError, match=r"integrations\.toml is not TOML"):
        make().all()
