"""What a text holds: secrets, personal data, language."""

from datetime import date

import pytest
from tests.conftest import MakeWorker

from ripieno.analyze import Analyzer
from ripieno.analyze.language import detect_language
from ripieno.analyze.sensitivity import find_sensitive
from ripieno.domain import Pool, Privacy, Reason, Sensitivity, Task
from ripieno.encoders.static import StaticEncoder
from ripieno.errors import NoEligibleWorker
from ripieno.route import Conditions, mask_workers

AWS_KEY = "AKIA" + "IOSFODNN7" + "EXAMPLE"
GITHUB_TOKEN = "ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"Why does {AWS_KEY} fail?", {Sensitivity.SECRET}),
        (f"push with {GITHUB_TOKEN} please", {Sensitivity.SECRET}),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE", {Sensitivity.SECRET}),
        ("Write to jane.doe@example.org about it", {Sensitivity.PERSONAL}),
        ("Call +44 20 7946 0958 tomorrow", {Sensitivity.PERSONAL}),
        ("My card is 4111 1111 1111 1111", {Sensitivity.PERSONAL}),
        ("Pay to GB82 WEST 1234 5698 7654 32", {Sensitivity.PERSONAL}),
        ("My number is 536-90-4399", {Sensitivity.PERSONAL}),
        (f"jane.doe@example.org uses {AWS_KEY}", {Sensitivity.SECRET, Sensitivity.PERSONAL}),
        ("What is 4111 1111 1111 1112 divided by 7?", set()),
        ("Sum 1, 2, 3 and 12345678901234567890.", set()),
        ("Which law governs the sale of 9000 apples in the year 2026?", set()),
        ("", set()),
    ],
)
def test_secrets_and_personal_data_are_found_and_numbers_are_not(text: str, found: set[Sensitivity]) -> None:
    assert find_sensitive(text) == found


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
def test_the_language_is_told_or_left_open(text: str, language: str | None) -> None:
    assert detect_language(text) == language


async def test_sensitive_tasks_stay_within_their_boundary(make_worker: MakeWorker) -> None:
    pool = Pool((make_worker("far"), make_worker("here", privacy=Privacy.LOCAL)))
    analyzer = Analyzer(StaticEncoder(), looks_for_sensitive=True)
    kept = Conditions(today=date(2026, 1, 1), sensitive=Privacy.LOCAL)
    secret, plain = Task.from_text(f"rotate {AWS_KEY}"), Task.from_text("What is rice?")
    mask = mask_workers(secret, await analyzer.analyze(secret), pool, kept)
    assert mask.eligible == ("here",)
    why = mask.masked[pool["far"].id]
    assert why.reason == Reason.PRIVACY
    assert why.detail == "worker is public, and the task holds secret data"
    assert AWS_KEY not in str(mask)
    assert len(mask_workers(plain, await analyzer.analyze(plain), pool, kept).eligible) == 2
    with pytest.raises(NoEligibleWorker, match="the task holds secret data"):
        mask_workers(secret, await analyzer.analyze(secret), Pool((pool["far"],)), kept)
    blind = await Analyzer(StaticEncoder()).analyze(secret)
    assert blind.sensitivity == frozenset()
