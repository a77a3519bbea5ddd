"""Sensitivity: secrets and personal data in a text, found by kept detectors and checked where a check digit allows.

Secrets: detect-secrets, without its entropy detectors, which take any long word for one. Personal data: phone numbers
by libphonenumber, payment cards, IBANs and US social security numbers by their check digits (python-stdnum), addresses
of e-mail by their form.
"""

import re
from collections.abc import Iterator

from ripieno.domain import Sensitivity
from ripieno.memory.redact import secret_plugins

CHARACTERS = 20_000
REGION = "US"
"""Region of phone numbers without a country's code."""
_EMAIL = re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+\b")
_DIGITS = re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?![\w.])")
_SOCIAL = re.compile(r"(?<!\d)\d{3}-\d{2}-\d{4}(?!\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")


def find_sensitive(text: str) -> frozenset[Sensitivity]:
    """Find what a text holds that should not travel far; only its first `CHARACTERS` are read."""
    head = text[:CHARACTERS]
    found = set()
    if any(_find_secrets(head)):
        found.add(Sensitivity.SECRET)
    if any(_find_personal(head)):
        found.add(Sensitivity.PERSONAL)
    return frozenset(found)


def _find_secrets(text: str) -> Iterator[str]:
    for line in text.splitlines():
        for plugin in secret_plugins():
            yield from (str(secret) for secret in plugin.analyze_string(line) if secret)


def _find_personal(text: str) -> Iterator[str]:
    yield from _EMAIL.findall(text)
    if not any(map(str.isdigit, text)):
        return
    from phonenumbers import PhoneNumberMatcher
    from stdnum import iban, luhn
    from stdnum.us import ssn

    for match in _DIGITS.findall(text):
        digits = re.sub(r"\D", "", match)
        if luhn.is_valid(digits) and len(set(digits)) > 1:
            yield match
    yield from (match for match in _SOCIAL.findall(text) if ssn.is_valid(match))
    yield from (match for match in _IBAN.findall(text) if iban.is_valid(match))
    yield from (match.raw_string for match in PhoneNumberMatcher(text, REGION))
