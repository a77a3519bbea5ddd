"""Personal data: addresses, phone numbers, payment and personal numbers, by form and check digit.

python-stdnum checks digits, and libphonenumber checks phone numbers. A number with a weak check or none counts only
after its name.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from itertools import cycle, product
from string import ascii_uppercase

from ripieno.domain import Sensitivity
from ripieno.errors import ConfigError
from ripieno.plugins import require_extra
from ripieno.privacy.rules import Retry, SensitivityRule, list_literals

_FIRST, _LAST = r"(?:^|[^A-Za-z0-9])", r"(?:[^A-Za-z0-9]|$)"
_FIRST_DIGIT = r"(?:^\.?|[^A-Za-z0-9.]|[^0-9]\.)"
"""Text before a number of digits alone, so that it is not part of a decimal fraction."""
_CARD = (
    r"4\d{3}|5[1-5]\d{2}|2[2-7]\d{2}|3[47]\d{2}|30[0-5]\d|3[689]\d{2}|35[2-8]\d|6011|64[4-9]\d|65\d{2}|62\d{2}|"
    r"50[0-9]{2}|5[6-9]\d{2}|67\d{2}|60\d{2}"
)
"""First four digits of Visa, Mastercard, American Express, Diners Club, JCB, Discover, UnionPay, Maestro and RuPay."""
_CARD_LENGTHS = {"3": (14, 15, 16), "4": (13, 16, 19), "5": (16,), "2": (16,), "6": (16, 17, 18, 19)}

_DIGITS, _LETTERS = "digits", "letters"
_WITH_LETTERS = frozenset(
    {"es nie", "it codice fiscale", "mx curp", "mx rfc", "in pan", "gb national insurance number", "passport"}
)
NUMBERS: tuple[tuple[str, str, str], ...] = (
    ("us taxpayer number", r"9\d{2}-[5-9]\d-\d{4}", "us.itin"),
    ("fr social security number", r"[12] ?\d{2} ?(?:0[1-9]|1[0-2]) ?\d[\dABab] ?\d{3} ?\d{3} ?\d{2}", "fr.nir"),
    ("cn resident number", r"[1-9]\d{16}[\dXx]", "cn.ric"),
    ("br cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf"),
    ("es dni", r"\d{8}-?[A-Za-z]", "es.dni"),
    ("es nie", r"[XYZxyz]-?\d{7}-?[A-Za-z]", "es.nie"),
    ("it codice fiscale", r"(?i:[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z])", "it.codicefiscale"),
    ("mx curp", r"(?i:[A-Z]{4}\d{6}[HM][A-Z]{5}[A-Z0-9]\d)", "mx.curp"),
    ("se personal number", r"(?:19|20)?\d{6}[-+]\d{4}", "se.personnummer"),
    ("fi personal number", r"\d{6}[-+ABCDEFYXWVU]\d{3}[0-9A-Y]", "fi.hetu"),
    ("ch ahv number", r"756\.\d{4}\.\d{4}\.\d{2}", "ch.ssn"),
    ("be national number", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", "be.nn"),
    ("kr resident number", r"\d{6}-[1-8]\d{6}", "kr.rrn"),
    ("cl rut", r"\d{1,2}\.\d{3}\.\d{3}-[\dkK]", "cl.rut"),
    ("mx rfc", r"(?i:[A-Z&Ñ]{4}\d{6}[A-Z0-9]{2}[0-9A])", "mx.rfc"),
    ("in pan", r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]", "in_.pan"),
    ("no personal number", r"\d{6} ?\d{5}", "no.fodselsnummer"),
)
"""Forms that count without their name, because their shape or check digits rarely occur by chance."""

NAMED: tuple[tuple[str, str, str, str], ...] = (
    ("us employer number", r"\bein (?:is|n)|\bein:|employer id", r"\d{2}-?\d{7}", "us.ein"),
    ("fr tax number", r"num[ée]ro fiscal|\bspi (?:est|n)|\bspi:", r"\d{2} ?\d{2} ?\d{3} ?\d{3} ?\d{3}", "fr.nif"),
    ("nz tax number", r"\bird (?:is|n)|\bird:", r"\d{2,3}-?\d{3}-?\d{3}", "nz.ird"),
    ("us taxpayer number", r"itin|taxpayer", r"9\d{2}[- ]?\d{2}[- ]?\d{4}", "us.itin"),
    ("de tax number", r"steuer|idnr|tax id|\btin (?:is|n)|\btin:", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", "de.idnr"),
    ("nl citizen number", r"bsn|burgerservice|sofinum", r"\d{4}[. ]?\d{2}[. ]?\d{3}|\d{3}[. ]\d{3}[. ]\d{3}", "nl.bsn"),
    ("gb nhs number", r"nhs", r"\d{3}[ -]?\d{3}[ -]?\d{4}", "gb.nhs"),
    ("gb tax reference", r"\butr (?:is|number|no)\b|\butr:|tax reference", r"\d{5} ?\d{5}", "gb.utr"),
    ("ca social insurance number", r"\bsin (?:is|n)|\bsin:|social ins", r"\d{3}[- ]?\d{3}[- ]?\d{3}", "ca.sin"),
    ("au tax file number", r"tfn|tax file", r"\d{3} ?\d{3} ?\d{2,3}", "au.tfn"),
    ("pl pesel", r"pesel", r"\d{11}", "pl.pesel"),
    ("dk personal number", r"cpr|personnummer", r"\d{6}[- ]?\d{4}", "dk.cpr"),
    ("se personal number", r"personnummer|personnr|samordningsnr", r"(?:19|20)?\d{6}[-+ ]?\d{4}", "se.personnummer"),
    ("in aadhaar", r"aadha?ar|uidai", r"\d{4}[ -]?\d{4}[ -]?\d{4}", "in_.aadhaar"),
    ("br cpf", r"cpf", r"\d{3}\.?\d{3}\.?\d{3}-?\d{2}", "br.cpf"),
    ("jp individual number", r"my number|個人番号|マイナンバー", r"\d{4}[ -]?\d{4}[ -]?\d{4}", "jp.in_"),
    ("tr identity number", r"kimlik|tckn", r"[1-9]\d{10}", "tr.tckimlik"),
    ("pt tax number", r"\bnif (?:is|es|é|n)|\bnif:|contribuinte", r"\d{3} ?\d{3} ?\d{3}", "pt.nif"),
    ("gr amka", r"amka", r"\d{11}", "gr.amka"),
    ("ro cnp", r"cnp", r"[1-9]\d{12}", "ro.cnp"),
    ("ru inn", r"\binn (?:is|number|no)\b|\binn:|инн", r"\d{12}", "ru.inn"),
    ("za identity number", r"id number|identity n|id no", r"\d{13}", "za.idnr"),
    ("hr oib", r"\boib\b", r"\d{11}", "hr.oib"),
    ("ee personal number", r"isikukood|personal code", r"[1-8]\d{10}", "ee.ik"),
    ("bg egn", r"\begn\b|егн", r"\d{10}", "bg.egn"),
    ("cz birth number", r"rodn", r"\d{6}/?\d{3,4}", "cz.rc"),
    ("ch ahv number", r"ahv|\bavs\b", r"756\.?\d{4}\.?\d{4}\.?\d{2}", "ch.ssn"),
    ("it codice fiscale", r"codice fiscale", r"(?i:[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z])", "it.codicefiscale"),
    ("il identity number", r"teudat|israeli id", r"\d{9}", "il.idnr"),
    ("ie pps", r"\bpps n|\bppsn|\bpps:", r"\d{7}[A-Za-z]{1,2}", "ie.pps"),
)  # fmt: skip
"""Form, pattern of its name, pattern of its digits, and the module of python-stdnum that checks them."""

_DOCUMENT = (
    r"passport|reisepass|passeport|pasaporte|passaporto|passaporte|paspoort|паспорт|护照|旅券|"
    r"driver(?:'|’)?s licen[cs]e|"
    r"driving licen[cs]e|führerschein|permis de conduire|personalausweis|national id|identity card|id card"
)


_SOCIAL = r"ssn|social sec|taxpayer id|\bmy social"


def list_rules(region: str | None) -> Iterator[SensitivityRule]:
    """Yield a rule for each form of personal data.

    Args:
        region: ISO 3166 region of phone numbers without a country code; None finds none of them.

    Raises:
        ConfigError: the extra is missing, or the region does not exist.
    """
    require_extra("privacy", "the scan for personal data", ("phonenumbers", "stdnum"))
    yield _personal(
        "e-mail address",
        r"(?:^|[^A-Za-z0-9._%+-])([A-Za-z0-9_%+][A-Za-z0-9._%+'-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,24})(?:[^A-Za-z0-9]|$)",
        check=_is_address,
        triggers=("@",),
        retry=Retry.END,
    )
    yield _personal(
        "e-mail address",
        r"((?:[^\x00-\x7f]|[A-Za-z0-9._%+-])+@(?:(?:[^\x00-\x7f]|[A-Za-z0-9-])+\.)+(?:[A-Za-z]{2,24}|(?:[^\x00-\x7f]){2,12}))",
        check=_is_wide_address,
        triggers=("@",),
        retry=Retry.END,
        is_wide=True,
    )
    yield _personal("payment card", rf"{_FIRST_DIGIT}((?:{_CARD})(?:[ .-]?\d){{9,15}}){_LAST}", check=_is_card)
    yield SensitivityRule(
        form="iban",
        pattern=rf"{_FIRST}([A-Za-z]{{2}}\d{{2}}(?:[ .-]?[A-Za-z0-9]){{11,30}})",
        alphabet=_LETTERS,
        trim=_trim_iban,
        check=_is_iban,
        kind=Sensitivity.PERSONAL,
        retry=Retry.NEXT,
    )
    yield from _number_rules()
    yield from _phone_rules(region)


def _number_rules() -> Iterator[SensitivityRule]:
    social = "us social security number"
    yield _personal(social, rf"{_FIRST}(\d{{3}}[- ]\d{{2}}[- ]\d{{4}}){_LAST}", check=_is_social)
    yield _personal(
        social,
        rf"(?i:{_SOCIAL})[^\d]{{0,32}}(\d{{3}}[- .]?\d{{2}}[- .]?\d{{4}}){_LAST}",
        check=_is_social,
        triggers=list_literals(_SOCIAL),
    )
    for form, digits, module in NUMBERS:
        yield _personal(form, rf"{_FIRST_DIGIT}({digits}){_LAST}", check=_Number(module))
    yield _personal(
        "gb national insurance number",
        rf"{_FIRST}((?i:[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{{2}} ?\d{{2}} ?\d{{2}} ?[A-D])){_LAST}",
        check=_is_insurance,
    )
    for form, name, digits, module in NAMED:
        yield _personal(
            form, rf"(?i:{name})[^\d]{{0,32}}({digits}){_LAST}", check=_Number(module), triggers=list_literals(name)
        )
    yield _personal(
        "passport or licence",
        rf"(?i:{_DOCUMENT})[^\d\n]{{0,28}}?\b([A-Za-z]{{0,3}}\d{{5,12}}[A-Za-z]?|[A-Za-z]\d[A-Za-z0-9]{{5,7}}){_LAST}",
        check=lambda value: sum(map(str.isdigit, value)) >= 4,
        triggers=list_literals(_DOCUMENT),
    )
    yield _personal(
        "passport", r"([A-Z0-9<]{9}\d[A-Z<]{3}\d{7}[MFX<]\d{7}[A-Z0-9<]{14}[\d<]\d)", check=_is_machine_read
    )


def _personal(
    form: str,
    pattern: str,
    *,
    check: Callable[[str], bool],
    triggers: tuple[str, ...] = (),
    retry: Retry = Retry.NEXT,
    is_wide: bool = False,
) -> SensitivityRule:
    alphabet = _LETTERS if form in _WITH_LETTERS else _DIGITS
    return SensitivityRule(
        form=form,
        pattern=pattern,
        check=check,
        triggers=triggers,
        alphabet="" if triggers else alphabet,
        kind=Sensitivity.PERSONAL,
        retry=retry,
        is_wide=is_wide,
    )


class _Number:
    """Checks a number by a module of python-stdnum, loaded on first use."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._is_valid: Callable[[str], bool] | None = None

    def __call__(self, value: str) -> bool:
        if len(set(filter(str.isalnum, value))) < 3:
            return False
        if self._is_valid is None:
            self._is_valid = import_module(f"stdnum.{self._module}").is_valid
        return bool(self._is_valid(value.replace(" ", "")))


@cache
def _iban_lengths() -> dict[str, int]:
    """Return the letters and digits of an IBAN, by country.

    Source:
        SWIFT, IBAN registry, in python-stdnum.
    """
    from stdnum import numdb

    registry, lengths = numdb.get("iban"), {}
    for country in map("".join, product(ascii_uppercase, repeat=2)):
        facts = registry.info(country)[0][1]
        widths = [int(width) for width in re.findall(r"(\d+)!?[nac]", str(facts.get("bban", "")))]
        if widths:
            lengths[country] = 4 + sum(widths)
    return lengths


def _trim_iban(value: str) -> str:
    left = _iban_lengths().get(value[:2].upper(), 0)
    for place, each in enumerate(value):
        left -= each.isalnum()
        if left == 0:
            return "" if value[place + 1 : place + 2].isalnum() else value[: place + 1]
    return ""


def _is_iban(value: str) -> bool:
    from stdnum import iban

    return bool(iban.is_valid(value.replace(".", "")))


def _is_card(value: str) -> bool:
    from stdnum import luhn

    digits = "".join(filter(str.isdigit, value))
    if len(digits) not in _CARD_LENGTHS[digits[0]] or len(set(digits)) < 2:
        return False
    is_grouped = len(digits) == len(value) or bool(
        re.match(r"^(?:\d{4}[ .-]){3}\d{1,7}$|^\d{4}[ .-]\d{6}[ .-]\d{4,5}$", value)
    )
    return is_grouped and bool(luhn.is_valid(digits))


def _is_social(value: str) -> bool:
    """Return whether a number is in a range that the United States issue. Known example numbers count, too.

    Source:
        SSA, randomization of 2011: no area 000, 666 or 900 to 999, no group 00, no serial 0000.
    """
    digits = "".join(filter(str.isdigit, value))
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _is_address(value: str) -> bool:
    """Return whether it is a mail address. The login of a repository is not one."""
    name, _, domain = value.partition("@")
    ending = domain.rpartition(".")[2].lower()
    return name.lower() not in ("git", "hg", "svn") and ending not in _FILES and not name.endswith(".")


_FILES = frozenset(
    {
        "py",
        "js",
        "ts",
        "json",
        "png",
        "jpg",
        "jpeg",
        "gif",
        "svg",
        "css",
        "html",
        "md",
        "txt",
        "yaml",
        "yml",
        "service",
        "so",
    }
)
"""File extensions that follow an `@` in versions and assets, and are not mail domains."""


def _is_wide_address(value: str) -> bool:
    return not value.isascii() and _is_address(value)


def _is_insurance(value: str) -> bool:
    return value[:2].upper() not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ") and len(set(value[2:-1])) > 2


def _is_machine_read(value: str) -> bool:
    """Return whether the second line of a passport's machine-readable zone has valid check digits.

    Source:
        ICAO 9303, part 3: weights 7, 3, 1.
    """
    parts = ((value[:9], value[9]), (value[13:19], value[19]), (value[21:27], value[27]))
    return all(_check_digit(part) == digit for part, digit in parts)


def _check_digit(part: str) -> str:
    values = (0 if each == "<" else int(each, 36) for each in part)
    return str(sum(value * weight for value, weight in zip(values, cycle((7, 3, 1)), strict=False)) % 10)


def _phone_rules(region: str | None) -> Iterator[SensitivityRule]:
    yield _personal(
        "phone number", r"(?:^|[^A-Za-z0-9+])(\+ ?\(?[1-9](?:[ ().\-/]{0,3}\d){6,14})(?:[^\d]|$)", check=_Phone(None)
    )
    yield _personal(
        "phone number",
        r"(?:^|[^A-Za-z0-9+.,-])(00[1-9]\d{0,2}[ ().\-/]{1,3}\d(?:[ ().\-/]{0,3}\d){5,12})(?:[^\d]|$)",
        check=_Phone(None),
    )
    if region is None:
        return
    import phonenumbers

    code = phonenumbers.country_code_for_region(region)
    if not code:
        raise ConfigError(
            f"route.phone_region {region!r} is not a region",
            key="route.phone_region",
            hint="write the two letters of ISO 3166, such as US or DE",
        )
    yield _personal(
        "phone number",
        r"(?i:phone|tel\b|telefon|mobil|móvil|cell\b|call|whatsapp|sms|text me|fax|handy|contact|reach)"
        r"[^\d\n+]{0,24}(\(?\d(?:[ ().\-/]{0,2}\d){6,13})(?:[^\d]|$)",
        check=_Phone(region),
    )
    pattern = r"\(\d{3}\) ?\d{3}[-. ]\d{4}|\d{3}[-. ]\d{3}[-. ]\d{4}|1-\d{3}-\d{3}-\d{4}" if code == 1 else _ABROAD
    yield _personal(
        "phone number", rf"(?:^|[^A-Za-z0-9+.,/-])({pattern})(?:[^A-Za-z0-9]|$)", check=_Phone(region, is_strict=True)
    )


_ABROAD = r"\(0\d{1,4}\)(?:[ \-/.]?\d{2,8}){1,5}|0\d{1,5}(?:[ \-/.]{1,3}\d{2,8}){1,5}|[1-9]\d{1,2}(?:[ .-]\d{2,4}){2,3}"


class _Phone:
    """Checks a number by libphonenumber.

    Args:
        region: region of the number; None accepts only numbers with a country code.
        is_strict: whether its digits must be grouped as usual in the region.
    """

    def __init__(self, region: str | None, *, is_strict: bool = False) -> None:
        self._region = region
        self._is_strict = is_strict

    def __call__(self, value: str) -> bool:
        import phonenumbers

        digits = re.sub(r"\D", "", value)
        if len(set(digits)) < 3:
            return False
        try:
            number = phonenumbers.parse(f"+{value[2:]}" if value.startswith("00") else value, self._region)
        except phonenumbers.NumberParseException:
            return False
        if not phonenumbers.is_valid_number(number):
            return False
        return not self._is_strict or self._is_grouped(number, value)

    def _is_grouped(self, number: object, value: str) -> bool:
        import phonenumbers

        if phonenumbers.country_code_for_region(self._region) == 1:
            return True
        written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
        return value.lstrip("(").startswith("0") or re.findall(r"\d+", written) == re.findall(r"\d+", value)
