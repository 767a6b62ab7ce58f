"""Redaction: secrets and personal data are dropped, and what recovery needs is kept."""

# ruff: noqa: RUF001 -- the tests contain characters that look like others

import json
import re
import unicodedata
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.simulator import SimulatedAccount
from orchestration.simulator.stripe.objects import Renderer
from orchestration.simulator.world.account import RESOURCES
from orchestration.warehouse.redact import redact, stored_json

PROJECT = Path(__file__).parents[3] / "dbt_project"
CARD = "4242424242424242"
IBAN = "DE89370400440532013000"

DROPPED_KEYS_TEXT = """
client_secret billing_details shipping receipt_email customer_name customerEmail phone billing_address tax_id evidence
receipt_url verified_name payer-email iban ip_address description owner
mandate_url hosted_invoice_url invoice_pdf hosted_voucher_url hosted_instructions_url return_url url successUrl
magic_link href redirect_uri
name name1 name_2 Name NAME first.name first_name firstName FirstName FIRSTNAME firstname last-name customer[name]
customer[first_name] customer%5Bname%5D customer.name surname
username userName user_name nickname maidenName names recipient contact account_holder accountHolder cardholder buyer
address address2 addressLine1 line1 line_2 street street2 city town zip zipcode zip_code postal_code postcode
email e-mail eMail E-Mail email2 mail mailAddress contactEmail
tel telephone mobile cell cellphone fax whatsapp phoneNumber phone_number_1 msisdn
ip clientIp remote_addr IPAddress
dob date_of_birth dateOfBirth birthday birth_date gender ssn passport passport_number vatNumber national_id
cardNumber card_number account-number
vorname Nachname kundenname Kunden-Name strasse straße Straße hausnummer plz PLZ ort wohnort telefonnummer handy
geburtsdatum geb_datum Geburtsdatum1 lieferadresse rechnungsadresse e_mail_adresse kontoinhaber empfänger empfaenger
anschrift benutzername passwort
prenom prénom Prénom nom nom_client adresse ville code_postal codePostal date_naissance courriel telephone_portable
mot_de_passe
nombre apellido apellidos correo correo_electronico telefono teléfono direccion dirección ciudad codigo_postal movil
fecha_nacimiento contraseña
nome cognome indirizzo città cellulare codice_fiscale data_di_nascita
sobrenome endereço endereco morada telemovel telefone senha data_nascimento
naam achternaam voornaam adres straat huisnummer woonplaats telefoonnummer geboortedatum wachtwoord klantnaam
imie imię nazwisko ulica miasto kod_pocztowy hasło data_urodzenia
förnamn efternamn namn adress postnummer födelsedatum lösenord
fornavn efternavn etternavn fødselsdato poststed etunimi sukunimi puhelin jméno příjmení vezetéknév prenume
password Password db_password passwd pwd secret webhookSecret access_token accessToken refresh-token api_key apiKey
API_KEY x-api-key private_key token authorization cookie cvc cvv2 card_cvv pin otp session_token
bearer str verificationLink login creditCard card_no social_security_number numer_telefonu
"""
DROPPED_KEYS = [
    *DROPPED_KEYS_TEXT.split(),
    "Full Name",
    "Date of birth",
    "jane@example.com",
    "order of jane@example.com",
    f"card {CARD}",
    IBAN,
]

DROPPED_TEXTS = [
    *("jane@example.com", "call jane@example.com today", "jane.doe+shop@sub.example.co.uk", "JANE@EXAMPLE.COM"),
    *("jane%40example.com", "jane%2540example.com", "jane&#64;example.com", "ｊａｎｅ＠ｅｘａｍｐｌｅ．ｃｏｍ"),
    *(
        "+49 170 1234567",
        "+15551234567",
        "reach me: +44 (0)20 7946 0958",
        "%2B491701234567",
        "＋４９１７０１２３４５６７",
    ),
    *("tel 030 1234567", "Tel.: 030/1234567", "tel:0301234567", "Telefon 089 12 34 56", "phone 555-0123456"),
    *(
        "call me at 020 7946 0958",
        "Mobil: 0170-1234567",
        "Handy 01701234567",
        "tél. 01 42 68 53 00",
        "móvil 612 345 678",
    ),
    *(
        "telefono 06 1234 5678",
        "tel. nr. 22 123 45 67",
        "(555) 123-4567",
        "please ring 07700900123",
        "fax no. 030 1234567",
        "0049 170 1234567",
    ),
    *(CARD, "4242 4242 4242 4242", "4242-4242-4242-4242", "4242.4242.4242.4242", "４２４２４２４２４２４２４２４２"),
    *("5555555555554444", "2223003122003222", "378282246310005", "3782 822463 10005", "6011111111111117"),
    *("30569309025904", "3566002020360505", "6200000000000005", "6759649826438453", "4222222222222"),
    *("2200700000000009", "5019717010103742", "4000 0566 5566 5556 exp 12/30", "on 2026-11-28 4242 4242 4242 4242"),
    *(
        "card 4242424242424242, 123",
        "order_4242424242424242",
        "4242\u00a04242\u00a04242\u00a04242",
        "4242–4242–4242–4242",
    ),
    *("4242\u200b4242\u200b4242\u200b4242", "4242%204242%204242%204242", "4242+4242+4242+4242", "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢"),
    *(
        IBAN,
        "DE89 3704 0044 0532 0130 00",
        "de89370400440532013000",
        "IBAN: GB82 WEST 1234 5698 7654 32.",
        "NO9386011117947",
    ),
    *(
        "FR1420041010050500013M02606",
        "NL91ABNA0417164300",
        "MT84MALT011000012345MTLCAST001S",
        "pay BE68-5390-0754-7034",
    ),
    *(
        "BR1800360305000010009795493C1",
        "iban_PL61109010140000071219812874",
        "ＤＥ８９３７０４００４４０５３２０１３０００",
    ),
    *("sk_live_51H8abcdefghijk", "key rk_test_51H8abcdefghijk", "whsec_abcdefghijklmnop1234", "rk_live_1234567890"),
    *("pi_3Nabcdefghijklmn_secret_abcdefghijkl", "seti_1N_secret_Abcdefgh1234", "src_client_secret_abcdefgh1234"),
    *(
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2ln",
        "Bearer abcdefgh12345678",
        "authorization: bearer abc",
        "Basic dXNlcjpwYXNz",
    ),
    *("BEARER ABCDEFGH1234", "-----BEGIN RSA PRIVATE KEY-----", "AKIAIOSFODNN7EXAMPLE", "rt_abcdefghijklmnopqrstuvwx"),
    *(
        "password=hunter2",
        "pwd: hunter2",
        "name=Jane Doe",
        "Name: Jane Doe",
        "vorname=Jana&plan=pro",
        "first name: Jane",
    ),
    *(
        "https://pay.stripe.com/receipts/abc",
        "https://hooks.stripe.com/redirect/x",
        "https://invoice.stripe.com/i/acct_1/x",
    ),
    *("https://shop.example/pay?token=abc", "https://user:pw@shop.example/", "https://shop.example/#access"),
    *("https://shop.example/reset/a1b2c3d4e5f6a7b8c9d0e1", "see https://checkout.stripe.com/c/pay/cs_live_1 soon"),
    *(
        "https%3A%2F%2Fshop.example%2Fpay%3Ftoken%3Dabc",
        '{"name": "Jane D',
        '"jane@example.com"',
        "%7B%22name%22%3A%22Jane%22%7D",
    ),
]

KEPT: list[dict[str, Any]] = [
    {
        "id": "pi_3QbXX0AbCdEf",
        "customer": "cus_su549XwfZogIrB",
        "latest_charge": "ch_3QbDE89370400440532",
        "invoice": "in_1",
    },
    {"payment_method": "pm_1QbXX", "mandate": "mandate_1Q", "review": "prv_1", "balance_transaction": "txn_3QbXX"},
    {
        "code": "card_declined",
        "decline_code": "insufficient_funds",
        "network_decline_code": "51",
        "advice_code": "try_again_later",
    },
    {"network_advice_code": "02", "network_status": "declined_by_network", "risk_level": "normal", "risk_score": 17},
    {
        "brand": "visa",
        "last4": "4242",
        "fingerprint": "Xt5EWLLDS7FJjR1c",
        "exp_month": 1,
        "funding": "credit",
        "iban_last4": "3000",
    },
    {"checks": {"address_line1_check": "pass", "address_postal_code_check": "fail", "cvc_check": "pass"}},
    {"us_bank_account": {"bank_name": "STRIPE TEST BANK", "fingerprint": "F", "routing_number": "110000000"}},
    {"sepa_debit": {"bank_code": "37040044", "fingerprint": "vifs0Ho7vwRn1Miu", "country": "DE", "last4": "3000"}},
    {
        "metadata": {
            "order_id": "A-17",
            "plan": "pro",
            "invoice_id": "in_1",
            "retry_attempt": "2",
            "payment_id": "7",
            "subscription_cycle": "9",
        }
    },
    {
        "metadata": {
            "product_name": "Pro plan",
            "plan_name": "Gold",
            "item_name": "Shoes",
            "utm_source": "mail",
            "sku": "SKU-001234",
        }
    },
    {"metadata": {"order": "4242424242424241", "fails_luhn": "1234567890123456", "no_network": "7000000000000003"}},
    {"metadata": {"no_network_but_luhn": "1000000000000008", "arn": "74537604221222132710572", "short": "00000000017"}},
    {
        "metadata": {
            "at": "1700000000",
            "at_ms": "1700000000123",
            "when": "2026-11-28T02:03:42Z",
            "day": "2026-11-28 02:03",
        }
    },
    {"metadata": {"uuid": "550e8400-e29b-41d4-a716-446655440000", "sha": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"}},
    {
        "metadata": {
            "ean": "4006381333931",
            "price": "EUR 1.234.567,89",
            "version": "10.2.33.4",
            "size": "XL (tall)",
            "hotel": "Hotel 1234567",
        }
    },
    {
        "metadata": {
            "json": '{"order":17,"items":["a","b"]}',
            "query": "plan=pro&seats=3",
            "note": "Order: 17, items: 3",
        }
    },
    {
        "metadata": {
            "site": "https://shop.example/products/red-shoes",
            "Größe": "größer als 40",
            "reference": "DE89370400440532013001",
        }
    },
    {
        "amount": 999_999_999_999,
        "created": 1_700_000_000,
        "created_ms": 1_700_000_000_123,
        "long": 4242424242424241,
        "rate": 1.5,
    },
    {
        "payment_method_types": ["card"],
        "description_code": 1,
        "shipment": 2,
        "recipe": 3,
        "zipped": 4,
        "tip": 5,
        "user_id": 6,
    },
    {
        "doc_url": "https://stripe.com/docs/error-codes/card-declined",
        "message": "Your card's security code is incorrect.",
    },
    {
        "card": {
            "network_token": {"used": False},
            "authorization_code": "107113",
            "network_transaction_id": "104102978678771",
        }
    },
    {"payment_method_options": {"card": {"require_cvc_recollection": True, "request_three_d_secure": "automatic"}}},
    {
        "request": {"id": "req_Ab12cdefghijkl", "idempotency_key": "key_Ab12"},
        "statement_descriptor": "SHOP 0049",
        "captured": True,
    },
    {"link": {"country": "US"}, "payment_link": "plink_1", "session_id": "cs_live_a1b2c3", "transaction_link_id": "T1"},
    {
        "id": "cs_test_a1b2c3d4e5f6g7h8",
        "status": None,
        "metadata": {},
        "refunds": [],
        "empty": "",
        "line_items": 3,
        "outline": "x",
    },
]


@pytest.mark.parametrize("key", DROPPED_KEYS)
def test_a_key_that_names_a_secret_or_a_person_is_dropped_at_any_depth(key: str) -> None:
    node = {key: "secret", "list": [{"deeper": {key: {"line1": "secret"}}}], "metadata": {key: None}}
    assert redact(node) == {"list": [{"deeper": {}}], "metadata": {}}


@pytest.mark.parametrize("text", DROPPED_TEXTS)
def test_a_text_that_holds_a_secret_or_personal_data_becomes_null(text: str) -> None:
    node = {"id": "pi_1", "metadata": {"note": text, "order_id": "A-1"}, "list": [text, [{"x": text}]]}
    assert redact(node) == {"id": "pi_1", "metadata": {"note": None, "order_id": "A-1"}, "list": [None, [{"x": None}]]}


@pytest.mark.parametrize("kept", KEPT)
def test_what_recovery_needs_is_kept(kept: dict[str, Any]) -> None:
    assert redact(deepcopy(kept)) == kept


def test_no_key_that_the_models_read_is_dropped() -> None:
    sources = [*PROJECT.glob("models/staging/*.sql"), *PROJECT.glob("macros/*.sql")]
    shapes = [name for path in sources for name in re.findall(r"'(\w+)': (?:'|\{|last_|metadata_)", path.read_text())]
    named = yaml.safe_load((PROJECT / "dbt_project.yml").read_text())["vars"]
    metadata = [
        *named["recovery_link_metadata_keys"],
        *named["recovery_retry_metadata_keys"],
        named["experiment_metadata_key"],
    ]
    assert {"decline_code", "three_d_secure", "order_reference", "cvc_check", "order_id"} <= {*shapes, *metadata}
    assert [key for key in [*shapes, *metadata] if redact({key: 1}) == {}] == []


def test_patterns_are_found_in_a_text_of_several_lines() -> None:
    node = {"note": "two\nlines", "other": f"paid with\n{CARD}\nat noon", "last": "x"}
    assert redact(node) == {"note": "two\nlines", "other": None, "last": "x"}


def test_a_card_number_stored_as_an_integer_becomes_null() -> None:
    assert redact({"a": int(CARD), "b": [int(CARD), 17]}) == {"a": None, "b": [None, 17]}


def test_json_in_a_text_is_redacted_field_by_field() -> None:
    inner = {"order": 17, "customer": {"name": "Jane", "id": "c1"}, "others": ["jane@example.com", "none"]}
    expected = {"order": 17, "customer": {"id": "c1"}, "others": [None, "none"]}
    stored = redact({"metadata": {"cart": json.dumps(inner)}})["metadata"]["cart"]
    assert json.loads(stored) == expected
    assert redact({"cart": json.dumps(json.dumps(inner))}) == {"cart": None}
    assert redact({"cart": quote(json.dumps(inner))}) == {"cart": None}


def test_json_in_a_text_that_is_nested_too_deeply_becomes_null() -> None:
    assert redact({"note": "[" * 900 + "]" * 900, "id": "x"}) == {"note": None, "id": "x"}


def test_only_the_type_of_a_next_action_is_kept() -> None:
    action = {"type": "redirect_to_url", "redirect_to_url": {"url": "https://hooks.stripe.com/x?client_secret=y"}}
    assert redact({"next_action": action}) == {"next_action": {"type": "redirect_to_url"}}


@pytest.mark.parametrize(
    ("kind", "instant"),
    [
        ("boleto_display_details", "expires_at"),
        ("card_await_notification", "charge_attempt_at"),
        ("konbini_display_details", "expires_at"),
        ("multibanco_display_details", "expires_at"),
        ("oxxo_display_details", "expires_after"),
        ("pix_display_qr_code", "expires_at"),
        ("verify_with_microdeposits", "arrival_date"),
    ],
)
def test_the_instant_that_a_next_action_waits_for_is_kept(kind: str, instant: str) -> None:
    details = {
        instant: 1_800_000_000,
        "hosted_voucher_url": "https://payments.stripe.com/voucher/x",
        "hosted_verification_url": "https://payments.stripe.com/microdeposit/x_secret_y",
        "number": "34191790010104351004791020150008291070026000",
        "data": "00020126580014br.gov.bcb.pix",
        "reference": "123456789",
        "stores": {"lawson": {"payment_code": "444444", "expires_at": 1}},
        "image_url_png": "https://qr.stripe.com/x.png",
    }
    action = {"type": kind, kind: details, "other": {instant: 2, "name": "Jane"}}
    assert redact({"next_action": action}) == {"next_action": {"type": kind, kind: {instant: 1_800_000_000}}}


@pytest.mark.parametrize("instant", ["Jane", "4242424242424242", 4242424242424242, True, 1.5, None, ["Jane"], {"a": 1}])
def test_an_instant_of_a_next_action_that_is_not_a_time_is_dropped(instant: object) -> None:
    action = {"type": "pix_display_qr_code", "pix_display_qr_code": {"expires_at": instant}}
    kept = redact({"next_action": action})["next_action"]
    assert kept.pop("type") == "pix_display_qr_code"
    assert kept in ({}, {"pix_display_qr_code": {"expires_at": None}})


def test_a_next_action_with_bank_details_keeps_none_of_them() -> None:
    kind = "display_bank_transfer_instructions"
    iban = {"account_holder_name": "Jane", "iban": "DE89370400440532013000", "bic": "COBADEFFXXX"}
    details = {"reference": "AB12", "financial_addresses": [{"type": "iban", "iban": iban}]}
    assert redact({"next_action": {"type": kind, kind: dict(details)}}) == {"next_action": {"type": kind}}
    kept = {"type": kind, kind: {"expires_at": 1}}
    assert redact({"next_action": {"type": kind, kind: details | {"expires_at": 1}}}) == {"next_action": kept}


@pytest.mark.parametrize("kind", [None, 7, ["x"], {"name": "Jane"}, "type", "jane@example.com"])
def test_a_next_action_of_an_unexpected_type_keeps_no_personal_data(kind: object) -> None:
    stored = stored_json(redact({"next_action": {"type": kind, "jane@example.com": {"expires_at": 1}, "url": "Jane"}}))
    assert "Jane" not in stored
    assert "jane" not in stored


def test_the_redirect_address_of_a_source_is_dropped() -> None:
    redirect = {"failure_reason": None, "status": "pending", "url": "https://hooks.stripe.com/redirect?client_secret=y"}
    source = {"id": "src_1", "client_secret": "src_client_secret_x", "owner": {"name": "Jane"}, "redirect": redirect}
    assert redact({"source": source}) == {
        "source": {"id": "src_1", "redirect": {"failure_reason": None, "status": "pending"}}
    }


def test_equal_objects_are_stored_as_equal_text() -> None:
    assert stored_json({"b": 1, "a": {"d": 1, "c": 2}}) == stored_json({"a": {"c": 2, "d": 1}, "b": 1})


def simulated() -> list[dict[str, Any]]:
    account = SimulatedAccount(seed=11, payments=60, days=20)
    renderer = Renderer(account)
    return [
        renderer.render(resource, entry, account.now)
        for resource in RESOURCES
        for entry in account.list_entries(resource, account.now, created=(0, account.now))
    ]


OBJECTS = simulated()

PERSONAL_IN_SIMULATOR = frozenset(
    {"billing_details", "shipping", "description", "evidence", "receipt_email", "receipt_url", "client_secret"}
)


def fields(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Return the leaves of an object by path, without personal data."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if children is None:
        yield path, node
        return
    for key, child in children:
        if key not in PERSONAL_IN_SIMULATOR:
            yield from fields(child, (*path, key))


def test_redaction_changes_no_other_field_of_ordinary_objects() -> None:
    personal_metadata = {"customer_email", "phone", "customer_name", "note"}
    for original in OBJECTS:
        kept = dict(fields(redact(deepcopy(original))))
        for path, value in fields(original):
            if not ("next_action" in path or ("metadata" in path and path[-1] in personal_metadata)):
                assert path in kept, path
                assert kept[path] == value, path


def with_luhn_digit(digits: str) -> str:
    total = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[::-2]) + sum(map(int, digits[-2::-2]))
    return digits + str(-total % 10)


def with_iban_checksum(country: str, bban: str) -> str:
    rest = int("".join(str(int(character, 36)) for character in bban + country + "00")) % 97
    return f"{country}{98 - rest:02}{bban}"


def digits(count: int) -> st.SearchStrategy[str]:
    return st.text("0123456789", min_size=count, max_size=count)


def separated(text: str, separator: str, group: int) -> str:
    return separator.join(text[at : at + group] for at in range(0, len(text), group))


numbers = st.one_of(
    st.tuples(st.sampled_from(["4", "51", "55", "2221", "2720", "6011", "62", "3530", "36"]), digits(15)).map(
        lambda parts: with_luhn_digit((parts[0] + parts[1])[:15])
    ),
    st.tuples(st.sampled_from(["34", "37"]), digits(12)).map(lambda parts: with_luhn_digit(parts[0] + parts[1])),
    digits(18).map(lambda bban: with_iban_checksum("DE", bban)),
    digits(14).map(lambda bban: with_iban_checksum("GB", "WEST" + bban)),
    digits(21).map(lambda bban: with_iban_checksum("PT", bban)),
    st.tuples(digits(10), st.text("ABCXYZ0189", min_size=11, max_size=11), digits(2)).map(
        lambda parts: with_iban_checksum("FR", "".join(parts))
    ),
)
tokens = st.text("abcdefghXYZ0189", min_size=12, max_size=24)
written_numbers = st.builds(separated, numbers, st.sampled_from(["", " ", "-", ".", "\u00a0", "–"]), st.just(4))
full_width = written_numbers.map(
    lambda text: "".join(chr(ord(each) + 0xFEE0) if "!" <= each <= "~" else each for each in text)
)
emails = st.tuples(st.from_regex(r"[a-z0-9][a-z0-9._+-]{0,12}", fullmatch=True), tokens).map(
    lambda parts: f"{parts[0]}@{parts[1]}.example"
)
secrets = st.builds(
    str.__add__,
    st.sampled_from(["sk_live_", "sk_test_", "rk_live_", "whsec_", "pi_3Q_secret_", "Bearer 9", "eyJhbGciOi."]),
    tokens,
)
planted = st.one_of(written_numbers, full_width, emails, secrets)
surroundings = st.sampled_from(
    ["{}", "order {} of today", "({})", "a:{};b", "\n{}\n", '{{"x":"{}"}}', '["{}"]', "id_{}", "2026-11-28 {} 17"]
)
containers = st.sampled_from(["value", "key", "list", "new"])


def places(node: Any) -> Iterator[Any]:
    if isinstance(node, dict | list):
        yield node
        for child in node.values() if isinstance(node, dict) else node:
            yield from places(child)


def plain(text: str) -> str:
    return "".join(each for each in unicodedata.normalize("NFKC", text) if each.isalnum())


@settings(max_examples=400, deadline=None)
@given(st.data(), st.sampled_from(OBJECTS), planted, surroundings, st.booleans())
def test_personal_data_in_any_field_is_redacted_and_redaction_is_idempotent(
    data: st.DataObject, original: dict[str, Any], secret: str, surrounding: str, is_encoded: bool
) -> None:
    node = deepcopy(original)
    place = data.draw(st.sampled_from(list(places(node))))
    text = surrounding.format(quote(secret) if is_encoded else secret)
    if isinstance(place, list):
        place.append(text)
    elif data.draw(st.booleans()) or not place:
        place[data.draw(st.sampled_from([text, "order_note", "ref"]))] = text
    else:
        place[data.draw(st.sampled_from(list(place)))] = text
    stored = stored_json(redact(node))
    assert secret not in stored
    assert quote(secret) not in stored
    assert plain(secret) not in plain(stored)
    assert stored_json(redact(orjson.loads(stored))) == stored
