"""What is taken for a signing secret, and what people paste instead."""

import pytest

from orchestration.credentials import SecretRefused, signing_secret, signing_secrets

SECRET = "whsec_" + "Ab1" * 11


def test_a_signing_secret_is_taken_with_the_blanks_around_it_cut() -> None:
    assert signing_secret(f"  {SECRET}\n").get_secret_value() == SECRET


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
        ("whsec_abcd efghijklmnopqrstu", "a signing secret with a blank in it"),
        ("whsec_abc", "only part of a signing secret"),
        ("", "Nothing was pasted"),
        ("correct horse battery staple", "no signing secret of Stripe's"),
    ],
)
def test_everything_else_is_named_and_not_repeated(pasted: str, named: str) -> None:
    with pytest.raises(SecretRefused) as refused:
        signing_secret(pasted)
    told = str(refused.value)
    assert named in told
    assert "Workbench > Webhooks" in told, "where the right one is"
    assert not pasted or pasted[-8:] not in told


def test_two_secrets_may_count_at_once_and_no_more() -> None:
    assert [each.get_secret_value() for each in signing_secrets(f"{SECRET}, {SECRET}2")] == [SECRET, f"{SECRET}2"]
    with pytest.raises(SecretRefused, match="3 secrets"):
        signing_secrets(f"{SECRET},{SECRET}2,{SECRET}3")
    with pytest.raises(SecretRefused, match="a secret API key"):
        signing_secrets(f"{SECRET},sk_test_abc")
