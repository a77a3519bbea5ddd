"""Sensitive content of a text: secrets and personal data in every form and carrier; and the language."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import date

import pytest
from benchmarks.planted import CARRIERS, FORMS, PERSONAL, SECRETS
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import MakeWorker

from ripieno.analyze import Analyzer
from ripieno.analyze.language import detect_language
from ripieno.config import Settings
from ripieno.config.settings import RouteSettings
from ripieno.domain import Message, Pool, Privacy, Reason, Sensitivity, Task
from ripieno.domain.conversation import Text
from ripieno.encoders.static import StaticEncoder
from ripieno.errors import ConfigError, NoEligibleWorker
from ripieno.gateway.cache import name_request
from ripieno.gateway.keyring import ANYONE
from ripieno.privacy import Boundary, Scanner, make_scanner
from ripieno.privacy.boundary import list_seen
from ripieno.privacy.scanner import MARKS
from ripieno.privacy.unpack import DEPTH, clean, read_text, unpack
from ripieno.route import Conditions, mask_workers
from ripieno.wires import ChatDialect, MessagesDialect

SCANNER = make_scanner(region="US")
AWS_KEY = "AKIA" + "IOSFODNN7" + "EXAMPLE"
GITHUB_TOKEN = "ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789"


def kind_of(form: str) -> Sensitivity:
    return Sensitivity.SECRET if form in SECRETS else Sensitivity.PERSONAL


@pytest.mark.parametrize("carrier", CARRIERS)
def test_every_planted_form_is_found_in_every_carrier(carrier: str) -> None:
    missed = []
    for form, text in FORMS.items():
        asked = ChatDialect().read(CARRIERS[carrier](text))
        task = Task(messages=asked.messages, tools=asked.tools, params=asked.params)
        if kind_of(form) not in SCANNER.find(read_text(list_seen(task))):
            missed.append(form)
    assert missed == []
    assert len(FORMS) >= 100


@pytest.mark.parametrize("form", FORMS)
def test_redaction_leaves_nothing_to_find(form: str) -> None:
    text = FORMS[form]
    done = SCANNER.redact(text)
    assert sum(done.counts.values()) >= 1
    assert MARKS[kind_of(form)] in done.text
    assert SCANNER.find(done.text) == frozenset()
    assert SCANNER.redact(done.text).text == done.text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"Why does {AWS_KEY} fail?", {Sensitivity.SECRET}),
        (f"push with {GITHUB_TOKEN} please", {Sensitivity.SECRET}),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE", {Sensitivity.SECRET}),
        (f"jane.doe@example.org uses {AWS_KEY}", {Sensitivity.SECRET, Sensitivity.PERSONAL}),
        ("4111 1111 1111 1112 4111 1111 1111 1111", {Sensitivity.PERSONAL}),
        ("Order 5100 4111 1111 1111 1111 came", {Sensitivity.PERSONAL}),
        ("SSN:\n536904399", {Sensitivity.PERSONAL}),
        ("４１１１ １１１１ １１１１ １１１１", {Sensitivity.PERSONAL}),
        ("4111\u20111111\u20111111\u20111111", {Sensitivity.PERSONAL}),
        ("mail jane\\u0040example.org now", {Sensitivity.PERSONAL}),
        ("mail jane&#64;example.org now", {Sensitivity.PERSONAL}),
        ("見てください 田中@例え.jp", {Sensitivity.PERSONAL}),
        ("powershell -e " + "SgBhAG4AZQBAAGUAeABhAG0AcABsAGUALgBvAHIAZwA=", {Sensitivity.PERSONAL}),
        ("https://x.test/files/amFuZS5kb2VAZXhhbXBsZS5vcmc/show", {Sensitivity.PERSONAL}),
        ("PuTTY-User-Key-File-3: ssh-ed25519", {Sensitivity.SECRET}),
    ],
)
def test_forms_are_found_after_others_and_in_other_characters(text: str, found: set[Sensitivity]) -> None:
    assert SCANNER.find(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "What is 4111 1111 1111 1112 divided by 7?",
        "Sum 1, 2, 3 and 12345678901234567890.",
        "Which law governs the sale of 9000 apples in the year 2026?",
        "The password is required, and must be at least 12 characters long.",
        "password: str = Field(min_length=8)",
        "my password is incorrect.",
        "my password is expired.",
        "password = os.environ['PASSWORD']",
        "password: string\npassword: required\npassword=new_password",
        "the password is stored in the vault, and the password is hashed.",
        "token = tokens[index + 1]; secret = get_secret(name)",
        "api_key: your_api_key_here_please_1234",
        "postgres://user:${PASSWORD}@localhost/db",
        "git@github.com:acme/shop.git and react@18.2.0 and logo@2x.png",
        "task-management-system-with-long-identifier",
        "GB82 WEST 1234 5698 7654 33 is no account",
        "000-12-3456 and 666-12-3456 are no numbers of anybody",
        "a hash: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "+1 +1 +1 and +999 999 999 999 are no phones",
        "L898902C37UTO7408122F1204159ZE184226B<<<<<10",
        "1111111111111111 2222 2222 2222 2222",
        "AstropyDeprecationWarning in /usr/lib/python3/dist-packages/fooBarBaz",
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ",
        "Authorization: Bearer <token>",
        "",
    ],
)
def test_ordinary_text_raises_no_alarm(text: str) -> None:
    assert SCANNER.find(text) == frozenset()
    assert SCANNER.redact(text).text == text


def test_findings_count_characters_and_contain_no_text() -> None:
    text = "Grüße — 見て jane@example.org, and 4111 1111 1111 1111"
    found = SCANNER.locate(text)
    assert [text[each.start : each.end] for each in found] == ["jane@example.org", "4111 1111 1111 1111"]
    assert [each.form for each in found] == ["e-mail address", "payment card"]
    assert "jane" not in repr(found)


def test_encoded_secrets_are_replaced_completely() -> None:
    packed = "amFuZS5kb2VAZXhhbXBsZS5vcmc="  # jane.doe@example.org
    done = SCANNER.redact(f"keep é this {packed} and that")
    assert done.text == "keep é this [personal data removed] and that"
    assert done.counts == {"encoded": 1}
    assert SCANNER.redact("see https://x.test/?q=jane%40example.org now").text == "see [personal data removed] now"
    assert SCANNER.redact("one\nssn\\n536904399 \\\nthree").text == "one\nssn\\n[personal data removed] \\\nthree"
    split = SCANNER.redact("a\nmail jane \\u0040 x, ssn \\u0020 536904399\nb")
    assert split.text.startswith("a\n")
    assert SCANNER.find(split.text) == frozenset()


def test_phone_numbers_are_those_of_the_stated_region_or_have_a_code() -> None:
    german, american = "ruf an: 030 901820", "call me at (415) 555-2671"
    assert make_scanner(region="DE").find(german) == {Sensitivity.PERSONAL}
    assert make_scanner(region="DE").find("030 901820 ist die Zentrale") == {Sensitivity.PERSONAL}
    assert make_scanner(region="ES").find("el 612 34 56 78 es suyo") == {Sensitivity.PERSONAL}
    assert make_scanner(region="US").find(german) == frozenset()
    assert make_scanner(region="US").find(american) == {Sensitivity.PERSONAL}
    assert make_scanner().find(american) == frozenset()
    assert make_scanner().find("call +1 415 555 2671") == {Sensitivity.PERSONAL}
    with pytest.raises(ConfigError, match="'ZZ' is not a region") as caught:
        make_scanner(region="ZZ")
    assert caught.value.key == "route.phone_region"


def test_user_patterns_count_as_secrets_and_invalid_ones_are_named() -> None:
    scanner = make_scanner(has_personal=False, patterns={"project": r"(?i)\bbluebird-\d+\b"})
    assert scanner.find("About Bluebird-7, please") == {Sensitivity.SECRET}
    assert scanner.redact("About Bluebird-7, please").counts == {"project": 1}
    assert scanner.find("About bluebirds") == frozenset()
    for bad in (r"(?<=a)b", r"(", r"a*"):
        with pytest.raises(ConfigError, match="'mine'") as caught:
            make_scanner(patterns={"mine": bad})
        assert caught.value.key == "route.sensitive_patterns.mine"


def test_the_settings_carry_region_and_patterns() -> None:
    route = RouteSettings(sensitive=Privacy.LOCAL, phone_region="DE", sensitive_patterns={"x": "y+"})
    assert Settings(route=route).route.sensitive_patterns == {"x": "y+"}
    assert RouteSettings().phone_region == "US"


@given(st.text(), st.text())
def test_redaction_is_idempotent_and_changes_only_what_it_counts(before: str, after: str) -> None:
    text = f"{before} {AWS_KEY} {after}"
    done = SCANNER.redact(text)
    assert AWS_KEY not in done.text
    assert SCANNER.redact(done.text).text == done.text
    plain = f"{before}{after}"
    again = SCANNER.redact(plain)
    assert bool(again.counts) == (again.text != plain)


@given(st.recursive(st.text() | st.integers() | st.none() | st.booleans() | st.binary(), st.lists))
def test_all_text_of_a_value_is_read(value: object) -> None:
    read = read_text({"field": value})
    for leaf in leaves(value):
        assert str(leaf) in read


def leaves(value: object) -> Iterator[object]:
    if isinstance(value, list):
        for each in value:
            yield from leaves(each)
    elif isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        yield value


def test_a_value_that_is_nested_deep_is_read_without_recursion() -> None:
    nested: object = "jane@example.org"
    for _ in range(50_000):
        nested = [nested]
    assert SCANNER.find(read_text({"a": nested})) == {Sensitivity.PERSONAL}


def test_unpacking_stops_at_a_depth() -> None:
    import base64

    packed = "jane.doe@example.org is here"
    for _ in range(DEPTH):
        packed = base64.b64encode(packed.encode()).decode()
    assert SCANNER.find(packed) == {Sensitivity.PERSONAL}
    assert len(list(unpack(base64.b64encode(packed.encode()).decode()))) == DEPTH
    assert clean("plain") == "plain"


HOSTILE = {
    "prefixes": "sk-" * 10_000,
    "hints": "password=" * 4_000,
    "hints in words": "my password is " * 2_500,
    "at signs": "a@" * 16_000,
    "addresses": "git@github.com " * 2_000,
    "digits": "4111 1111 1111 1112 " * 1_500,
    "countries": "GB82WEST" * 4_000,
    "dots": "1.2.3.4." * 4_000,
    "pluses": "+1 (" * 8_000,
    "packed": "QUJD" * 8_000,
    "packed words": "AbCdEfGhIjKlMnOpQr " * 1_700,
    "escapes": "\\n\\u0041" * 4_000,
    "percent": "%41" * 10_000,
    "heads": "-----BEGIN PRIVATE " * 1_700,
    "wide": "４１１１ －" * 5_000,
    "tokens": "token: " * 4_500,
    "zeros": "0" * 32_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_scanning_hostile_text_takes_linear_time(name: str) -> None:
    """Count steps of the interpreter, which other processes do not disturb: four times the text takes at most five."""
    text = HOSTILE[name]
    once, again = count_steps(SCANNER, text), count_steps(SCANNER, text * 4)
    assert again <= 5 * once + 2_000


def test_unterminated_private_keys_are_removed_in_one_pass() -> None:
    text = "-----BEGIN PRIVATE KEY-----" * 2_000
    done = SCANNER.redact(text)
    assert done.counts == {"private key": 2_000}
    assert SCANNER.find(done.text) == frozenset()


def count_steps(scanner: Scanner, text: str) -> int:
    steps = 0

    def step(*_: object) -> None:
        nonlocal steps
        steps += 1

    scanner.find(text)
    sys.setprofile(step)
    try:
        scanner.find(text)
    finally:
        sys.setprofile(None)
    return steps


def test_a_scan_without_its_extra_is_refused() -> None:
    code = (
        "import sys; sys.modules['phonenumbers'] = None\n"
        "from ripieno.privacy import make_scanner\n"
        "make_scanner(has_personal=False)\n"
        "from ripieno.errors import ConfigError\n"
        "try: make_scanner()\n"
        "except ConfigError as error: print(error.message, '|', error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'phonenumbers', which is not installed | pip install 'ripieno[privacy]'" in done.stdout


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the capital of France and which river runs through it?", "en"),
        ("Bonjour, comment puis-je réinitialiser mon mot de passe aujourd'hui ?", "fr"),
        ("Wie kann ich mein Passwort heute noch aendern, bitte sofort", "de"),
        ("日本語のテキストを翻訳してください", "ja"),
        ("2 + 2", None),
        ("", None),
    ],
)
def test_the_language_is_detected_or_unknown(text: str, language: str | None) -> None:
    assert detect_language(text) == language


async def test_sensitive_tasks_stay_within_their_boundary(make_worker: MakeWorker) -> None:
    pool = Pool((make_worker("far"), make_worker("here", privacy=Privacy.LOCAL)))
    boundary = Boundary(Privacy.LOCAL, SCANNER)
    analyzer = Analyzer(StaticEncoder(), boundary=lambda: boundary)
    kept = Conditions(today=date(2026, 1, 1), sensitive=Privacy.LOCAL)
    secret, plain = Task.from_text(f"rotate {AWS_KEY}"), Task.from_text("What is rice?")
    mask = mask_workers(secret, await analyzer.analyze(secret), pool, kept)
    assert mask.eligible == ("here",)
    assert mask_workers(secret, await analyzer.survey(secret), pool, kept).eligible == ("here",)
    why = mask.masked[pool["far"].id]
    assert why.reason == Reason.PRIVACY
    assert why.detail == "worker is public, and the task holds secret data"
    assert AWS_KEY not in str(mask)
    assert len(mask_workers(plain, await analyzer.analyze(plain), pool, kept).eligible) == 2
    with pytest.raises(NoEligibleWorker, match="the task holds secret data"):
        mask_workers(secret, await analyzer.analyze(secret), Pool((pool["far"],)), kept)
    blind = await Analyzer(StaticEncoder()).analyze(secret)
    assert blind.sensitivity == frozenset()


async def test_a_long_text_is_scanned_outside_the_event_loop() -> None:
    boundary = Boundary(Privacy.LOCAL, SCANNER)
    text = "All is well here, thank you. " * 20_000
    assert await boundary.find(text) == frozenset()
    assert await boundary.find({"content": text + "jane@example.org"}) == {Sensitivity.PERSONAL}


async def test_the_cache_of_sensitivities_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ripieno.privacy.boundary.MOST_KNOWN", 2)
    boundary = Boundary(Privacy.LOCAL, SCANNER)
    for number in range(4):
        assert await boundary.find_in(Task.from_text(f"text {number}")) == frozenset()
    assert await boundary.find_in(Task.from_text(json.dumps({"to": PERSONAL["e-mail"]}))) == {Sensitivity.PERSONAL}


async def test_a_field_that_only_the_format_of_a_request_carries_is_looked_at() -> None:
    body = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello."}]}
    servers: tuple[list[dict[str, str]], ...] = (
        [],
        [{"type": "url", "url": "https://docs.example", "authorization_token": GITHUB_TOKEN}],
    )
    boundary, found = Boundary(Privacy.LOCAL, SCANNER), []
    for listed in servers:
        parsed = MessagesDialect().read(body | {"mcp_servers": listed})
        task = Task(messages=parsed.messages, params=parsed.params, native=parsed.native)
        found.append((await boundary.find_in(task), name_request(task, ANYONE, check=None)))
    assert [kinds for kinds, _ in found] == [frozenset(), {Sensitivity.SECRET}]
    assert found[0][1] != found[1][1], "one is not answered from the cache with the answer of the other"


@pytest.mark.parametrize("number", ["0.4532015112830366", "1.4111111111111111", "-0.5425233430109903", "12.5369012345"])
def test_decimal_places_are_not_card_or_personal_numbers(number: str) -> None:
    scanner = make_scanner()
    assert not scanner.find(f'{{"quality": {number}, "share": {number}}}')
    assert scanner.find(f"card no.{number.partition('.')[2]}") or number.startswith("12")


async def test_a_secret_in_two_parts_of_a_message_is_one_secret() -> None:
    parts = (Text(text="write to jo@exam"), Text(text="ple.com today"))
    task = Task(messages=(Message(role="user", content=parts),))
    assert await Boundary(Privacy.LOCAL, make_scanner()).find_in(task) == {Sensitivity.PERSONAL}
