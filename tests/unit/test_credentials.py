"""Checks of pasted signing secrets and API keys: what is accepted, what is refused and why, and masking."""

import pytest
from pydantic import SecretStr

from orchestration.config.credentials import (
    SecretRefused,
    mask_credentials,
    mask_key,
    parse_api_key,
    parse_app_secret_key,
    parse_signing_secret,
    parse_signing_secrets,
    reject_credentials,
)

SECRET = "whsec_" + "Ab1" * 11
KEY = "rk_live_" + "51HabcXYZ" * 11


def test_whitespace_around_a_signing_secret_is_stripped() -> None:
    assert parse_signing_secret(f"  {SECRET}\n").get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("pasted", "named"),
    [
        ("sk_live_51Habc", "a secret API key"),
        ("rk_test_51Habc", "a restricted API key"),
        ("sk_org_live_abc", "the API key of an organization"),
        ("pk_test_51Habc", "a publishable key"),
        ("we_1MtoPaste", "the id of a webhook endpoint"),
        ("ed_test_61abc", "the id of a webhook endpoint or event destination"),
        ("acct_1Habc", "the id of an account"),
        ("evt_3Pabc", "the id of an object"),
        ("https://hooks.example.com/webhooks/stripe/x", "an address"),
        ("t=1700000000,v1=abcdef", "a Stripe-Signature header"),
        (f"Bearer {SECRET}", "an Authorization header"),
        (f"STRIPE_WEBHOOK_SECRET={SECRET}", "a line of a settings file"),
        (f'"{SECRET}"', "something in quotation marks"),
        (SECRET + SECRET, "a signing secret twice in a row"),
        ("whsec_****************", "a signing secret that the dashboard hides"),
        ("whsec_abcd efghijklmnopqrstu", "a signing secret that contains a space or a line break"),
        ("whsec_abc", "only part of a signing secret"),
        ("", "Nothing was pasted"),
        ("correct horse battery staple", "not a signing secret"),
    ],
)
def test_anything_but_a_signing_secret_is_refused_with_its_kind_and_not_repeated(pasted: str, named: str) -> None:
    with pytest.raises(SecretRefused) as refused:
        parse_signing_secret(pasted)
    message = str(refused.value)
    assert named in message
    assert "Workbench > Webhooks" in message, "the message says where to find the right one"
    assert not pasted or pasted[-8:] not in message


def test_at_most_two_signing_secrets_are_accepted() -> None:
    assert [each.get_secret_value() for each in parse_signing_secrets(f"{SECRET}, {SECRET}2")] == [SECRET, f"{SECRET}2"]
    with pytest.raises(SecretRefused, match="3 secrets"):
        parse_signing_secrets(f"{SECRET},{SECRET}2,{SECRET}3")
    with pytest.raises(SecretRefused, match="a secret API key"):
        parse_signing_secrets(f"{SECRET},sk_test_abc")


@pytest.mark.parametrize(
    "key", [KEY, "rk_test_51Habc", "sk_live_51Habc", "sk_test_a_b_task_c", "rkcs_test_51Habc", "rk_without_a_mode"]
)
def test_whitespace_around_an_api_key_is_stripped(key: str) -> None:
    assert parse_api_key(f"\t{key} \n").get_secret_value() == key
    assert parse_api_key(f"\u00a0{key}\u2003").get_secret_value() == key, "spaces copied from a web page"
    assert parse_api_key(f"\ufeff{key}\r\n").get_secret_value() == key, "the byte-order mark of a file from Windows"


@pytest.mark.parametrize(
    ("pasted", "named"),
    [
        ("pk_live_51Habc", "a publishable key, which is made for browsers"),
        (SECRET, "the signing secret of a webhook endpoint"),
        ("we_1MtoPaste", "the id of a webhook endpoint"),
        ("ed_test_61abc", "the id of a webhook endpoint or event destination"),
        ("acct_1Habc", "the id of an account"),
        ("sk_org_live_abcdef", "the API key of an organization; Recoup takes the key of one account"),
        ("rk_org_test_abcdef", "the API key of an organization"),
        ("ek_test_YWNjdF8x", "an ephemeral key"),
        ("pi_3Pabcdef", "the id of an object"),
        ("https://dashboard.stripe.com/acct_1/settings", "an address"),
        ("t=1700000000,v1=abcdef", "a Stripe-Signature header"),
        (f"Bearer {KEY}", "an Authorization header"),
        (f"authorization: basic {KEY}", "an Authorization header"),
        (f"STRIPE_API_KEY={KEY}", "a line of a settings file"),
        (f"export stripe_secret = {KEY}", "a line of a settings file"),
        (f"stripe_api_key: {KEY}", "a line of a settings file"),
        (f"'{KEY}'", "something in quotation marks"),
        (f"“{KEY}”", "something in quotation marks"),
        (f"\u2018{KEY}\u2019", "something in quotation marks"),
        (KEY + KEY, "an API key twice in a row"),
        (f"{KEY}\nsk_test_51Habc", "an API key twice in a row, or two of them"),
        (f"{KEY},{SECRET}", "an API key twice in a row, or two of them"),
        ("rk_live_****************wxyz", "an API key that the dashboard hides; Stripe shows a live key only once"),
        ("sk_live_•••••••••wxyz", "an API key that the dashboard hides"),
        ("rk_live_51H…wxyz", "an API key that the dashboard hides"),
        ("rk_live_51H...wxyz", "an API key that the dashboard hides"),
        ("rk_live_51Habc defghij", "an API key that contains a space or a line break"),
        ("rk_live_51Habc\ndefghij", "an API key that contains a space or a line break"),
        ("rk_live_", "only part of an API key"),
        ("sk_test", "only part of an API key"),
        ("rkcs_test_", "only part of an API key"),
        ("rk_", "only part of an API key"),
        ("rk_live_51Habcdéf", "one with characters that no key has"),
        ("   ", "Nothing was pasted"),
        ("correct horse battery staple", "not an API key"),
    ],
)
def test_anything_but_an_api_key_is_refused_with_its_kind_and_not_repeated(pasted: str, named: str) -> None:
    with pytest.raises(SecretRefused) as refused:
        parse_api_key(pasted)
    message = str(refused.value)
    assert named in message
    assert "https://dashboard.stripe.com/apikeys" in message, "the message says where to find the right one"
    assert message.count(". ") == 1, "the message has two sentences"
    assert len(pasted.strip()) <= len("rkcs_test_") or pasted[-6:] not in message


@pytest.mark.parametrize(
    ("key", "masked"),
    [
        (KEY, "rk_live_…cXYZ"),
        ("rkcs_test_51Habcdefghijklmnop", "rkcs_test_…mnop"),
        ("sk_without_a_mode_abcdefgh", "sk_…efgh"),
        ("rk_test_0123456789abcdef", "rk_test_…cdef"),
        ("rk_test_0123456789abcde", "rk_test_…"),
        ("rk_test_", "rk_test_…"),
        ("", "…"),
    ],
)
def test_a_masked_key_shows_its_prefix_and_its_end_if_enough_stays_hidden(key: str, masked: str) -> None:
    assert mask_key(SecretStr(key)) == masked


def test_a_secret_key_is_accepted_as_the_key_of_an_app() -> None:
    assert parse_app_secret_key(" sk_test_51Habc\n").get_secret_value() == "sk_test_51Habc"


@pytest.mark.parametrize(
    ("pasted", "named"),
    [
        ("rk_test_51Habc", "a restricted API key"),
        ("sk_org_live_abc", "the API key of an organization"),
        ("sk_live_", "only part of a secret key"),
        ("ca_61Habc", "the id of an object"),
        ("", "Nothing was pasted"),
    ],
)
def test_anything_but_an_app_key_is_refused_with_its_kind_and_not_repeated(pasted: str, named: str) -> None:
    with pytest.raises(SecretRefused) as refused:
        parse_app_secret_key(pasted)
    assert named in str(refused.value)
    assert "belongs to the account that created the app" in str(refused.value)
    assert "51Habc" not in str(refused.value)


BODY = "51QzXwVuKpRmNhGqTb7"


@pytest.mark.parametrize(
    "text",
    [
        f"rk_live_{BODY}",
        f"  'sk_test_{BODY}' ",
        f"RK_LIVE_{BODY.upper()}",
        f"our shop; key=sk_live_{BODY}; ask Eve",
        f"rk_live_51Qz\n    XwVuKpRmNhGqTb7{BODY}",
        f"rk_\nlive_{BODY}",
        f"sk_org_live_{BODY}",
        f"rkcs_test_{BODY}",
        f"pk_live_{BODY}",
        f"ak_{BODY}",
        f"sk_{BODY}",
        f"whsec_{BODY}",
        f"WHSEC_{BODY}/+=",
        f"Bearer {BODY}",
        f"authorization: bearer {BODY}",
        f"shoprk_live_{BODY}",
        f"https://{'sk_live_' + BODY}@hooks.example.com",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc",
    ],
)
def test_a_credential_in_a_text_that_is_shown_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(SecretRefused) as refusal:
        reject_credentials(text, "The name")
    message = str(refusal.value)
    assert message.startswith("The name looks like")
    assert "Roll it" in message
    assert BODY[:6].lower() not in message.lower()
    assert BODY[-6:].lower() not in mask_credentials(text).lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "shop_eu",
        "our shop in Europe, keys with Eve",
        "the key is a rk_live_ key of 3 shops",
        "The API key starts with rk_live_ or rk_test_ and is in Stripe's dashboard under Developers > API keys.",
        "The signing secret starts with whsec_ and is in Stripe's dashboard under Workbench > Webhooks.",
        "shown as rk_live_…Tb7x",
        "risk_live_dashboard",
        "task_test_environment_of_the_team",
        "ca_51QzXwVuKpRmNhGqTb7",
        "acct_1A*",
        "acct_51QzXwVuKpRmNhGqTb7",
        "bearer of good news and basic functionality",
        "whsec_ goes where the webhook secret is asked for",
        "select * from marts.payment_attempts where stripe_key like 'sk_live_%' order by created_at",
        "payment_intent.succeeded,payment_intent.payment_failed",
        "postgresql+psycopg://user@host/database",
        "/srv/desk_files/recoup",
    ],
)
def test_an_ordinary_text_is_not_mistaken_for_a_credential(text: str) -> None:
    assert reject_credentials(text, "The name") == text
    assert mask_credentials(text) == text
