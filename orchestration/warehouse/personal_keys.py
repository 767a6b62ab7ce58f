"""Recognise JSON keys that name a secret, a URL that grants access, or personal data.

Merchants choose the keys of metadata freely, so each word of a key is compared: `customer[firstName]`, `first.name1`
and `FIRST_NAME` all contain the word "name".
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

_STRIPE_KEYS: Final = frozenset(
    {
        "billing_details",
        "business_profile",
        "cashtag",
        "description",
        "evidence",
        "level3",
        "owner",
        "payer_details",
        "shipping",
        "shipping_details",
        "verified_details",
    }
)
"""Keys of Stripe's objects whose whole value is personal data. Only an exact match counts."""


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PERSONAL_WORDS: Final = _word_set(
    # English
    """
    name firstname lastname fullname forename surname username nickname cardholder accountholder recipient addressee
    beneficiary email mail phone telephone tel mobile cell cellphone fax whatsapp msisdn mailto skype telegram instagram
    twitter login bday born address addr street city town
    postal postcode zip zipcode ip dob birth birthday birthdate birthplace gender sex salutation nationality religion
    ssn passport iban clabe vpa latitude longitude geolocation
    """
    # tax and identity numbers of countries
    """
    cpf cnpj cuit curp rfc dni nif nie nip pesel bsn nino oib egn cnp personnummer fodselsnummer henkilotunnus
    """
    # German
    """
    vorname nachname familienname benutzername inhaber kontoinhaber karteninhaber empfanger empfaenger anrede
    adresse anschrift strasse hausnummer hausnr plz postleitzahl ort wohnort stadt telefon telefonnummer rufnummer
    handy handynummer mobil mobilnummer mobilfunk geburtsdatum gebdatum geburtstag geburtsort geboren geschlecht
    steuernummer steuerid ausweisnummer personalausweis reisepass kontonummer kontonr kartennummer telnr
    """
    # French
    """
    nom prenom pseudo titulaire destinataire courriel rue
    ville codepostal telephone numtel portable naissance sexe civilite
    passeport
    """
    # Spanish
    """
    nombre apellido usuario titular destinatario correo direccion calle ciudad codigopostal telefono movil celular
    nacimiento sexo pasaporte
    """
    # Italian
    """
    nome cognome nominativo utente intestatario indirizzo citta telefono cellulare nascita sesso passaporto
    codicefiscale
    """
    # Portuguese
    """
    sobrenome apelido utilizador morada endereco rua cidade cep telefone celular telemovel nascimento passaporte
    """
    # Dutch
    """
    naam voornaam achternaam tussenvoegsel gebruikersnaam ontvanger adres straat straatnaam huisnummer woonplaats
    telefoon telefoonnummer mobiel geboortedatum geboorteplaats geslacht rijksregisternummer
    """
    # Polish
    """
    imie imiona nazwisko uzytkownik odbiorca ulica miasto miejscowosc pocztowy komorka telefonu urodzenia plec paszport
    """
    # Swedish, Danish, Norwegian, Finnish
    """
    namn fornamn efternamn anvandarnamn epost adress gata gatuadress postnummer postort fodelsedatum fodelsedag kon
    navn fornavn efternavn etternavn brugernavn brukernavn gade vej postnr poststed tlf mobilnr fodselsdato fodselsdag
    nimi etunimi sukunimi sahkoposti osoite katuosoite postinumero puhelin puhelinnumero syntymaaika
    """
    # Czech, Slovak, Hungarian, Romanian, Croatian
    """
    jmeno prijmeni prezvisko priezvisko ulice mesto psc narozeni nev keresztnev vezeteknev cim lakcim iranyitoszam
    telefonszam szuletesi nume prenume adresa strada oras nasterii ime prezime ulica grad rodenja
    """
    # Greek, Russian, Ukrainian
    """
    ονομα επωνυμο διευθυνση τηλεφωνο имя фамилия отчество адрес улица телефон почта
    """
)
_PERSONAL_PHRASES: Final = (
    *("tax id", "vat id", "vat number", "national id", "identity card", "id card", "driver license", "license plate"),
    *(
        "card number",
        "account number",
        "numero carte",
        "numero tarjeta",
        "numero carta",
        "codice fiscale",
        "credit card",
        "card no",
        "cc number",
        "tax number",
        "social security",
        "steuer id",
        "geb datum",
    ),
    *("code postal", "codigo postal", "codigo postale", "e post"),
)
_PERSONAL_ENDINGS: Final = (
    *("name", "naam", "namn", "navn", "mail", "telefon", "telefono", "telephone", "phone", "iban"),
    *("address", "adresse", "anschrift", "adres", "strasse", "straat", "birthdate", "birthday"),
)
"""Endings of compounds, such as Kundenname or Lieferadresse."""

_PERSONAL_LAST_WORDS: Final = _word_set("contact contacto contatto kontakt holder payee buyer")

_SECRET_WORDS: Final = _word_set(
    """
    secret password passwd passphrase pwd passwort kennwort motdepasse contrasena senha haslo wachtwoord losenord
    adgangskode passord salasana heslo jelszo parola lozinka apikey cookie jwt
    """
)
_SECRET_PHRASES: Final = (
    *("access token", "refresh token", "id token", "auth token", "api token", "session token", "bearer token"),
    *("security token", "device token", "reset token", "verification token", "login token", "csrf token"),
    *("api key", "private key", "secret key", "signing key", "access key", "encryption key", "mot de passe"),
    *("access code", "security code", "verification code", "client token", "persistent token"),
    *("magic link", "login link", "reset link", "verification link", "access link", "payment page"),
)
_SECRET_LAST_WORDS: Final = _word_set("cvc cvv cvn csc pin otp totp pan passcode credential")
_WHOLE_KEYS: Final = _word_set("token auth authorization bearer str")
"""Words that are private if they are the whole key (`str`: German, street). In `network_token` they are harmless."""

_URL_WORDS: Final = _word_set("url uri href weblink permalink pdf")
_HARMLESS_KEYS: Final = frozenset({"doc_url"})
"""Whole keys that are kept although a word in them is private."""

_HARMLESS_NOUNS: Final = _word_set(
    "product plan price item article sku brand bank coupon campaign network tier package variant feature file host"
)
"""Nouns whose name is not a person's name, as in `bank_name`."""

_HARMLESS_WORDS: Final = _word_set("iphone smartphone rename filename hostname productname planname brandname bankname")
"""Words that are kept although they end like a private one, such as `phone` or `name`."""

_HARMLESS_ENDING: Final = re.compile(r"(?<!ssn)_check$|^(iban|card_number|account_number)_last_?4$")
"""Keys with the result of a check, such as `address_line1_check`, or with the last four digits of a number."""

_ADDRESS_LINE: Final = re.compile(r"(^|_)line_?[1-9](_|$)")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SEPARATORS: Final = re.compile(r"[\W_]+")
_WORD: Final = re.compile(r"[^\W\d_]+")
_LETTERS: Final = str.maketrans(
    {"ß": "ss", "ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D", "æ": "ae", "Æ": "Ae", "œ": "oe"}
)


def is_dropped(key: str) -> bool:
    """Return whether redaction drops a key of an object: a private key, or one that is private at Stripe."""
    return key in _STRIPE_KEYS or is_private(key)


def is_private(key: str) -> bool:
    """Return whether a key names a secret, a URL that grants access, or personal data."""
    snake = _snake_case(key)
    if snake in _HARMLESS_KEYS or _HARMLESS_ENDING.search(snake):
        return False
    words = _WORD.findall(snake)
    if not words:
        return False
    singular = [word[:-1] if word.endswith("s") and word != "address" else word for word in words]
    return any(_is_listed(each) for each in (words, singular)) or bool(_ADDRESS_LINE.search(snake))


def _is_listed(words: Sequence[str]) -> bool:
    return (
        any(_is_private_word(word, before) for word, before in zip(words, ["", *words], strict=False))
        or words[-1] in _PERSONAL_LAST_WORDS
        or words[-1] in _SECRET_LAST_WORDS
        or (len(words) == 1 and words[0] in _WHOLE_KEYS)
        or _contains_phrase(words)
    )


def _is_private_word(word: str, before: str) -> bool:
    if word in _SECRET_WORDS or word in _URL_WORDS:
        return True
    if word in _HARMLESS_WORDS or (word == "name" and before in _HARMLESS_NOUNS):
        return False
    return word in _PERSONAL_WORDS or word.endswith(_PERSONAL_ENDINGS)


def _contains_phrase(words: Sequence[str]) -> bool:
    spaced = f" {' '.join(words)} "
    return any(
        f" {phrase} " in spaced or phrase.replace(" ", "") in words for phrase in (*_PERSONAL_PHRASES, *_SECRET_PHRASES)
    )


def _snake_case(key: str) -> str:
    """Return the key in lowercase, without accents, with `_` between its words."""
    decomposed = unicodedata.normalize("NFKD", unquote(key).translate(_LETTERS))
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return _SEPARATORS.sub("_", _CAMEL.sub("_", plain)).strip("_").lower()
