"""Replies of judges: one number or none, and never the first number of a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripieno.verify.reply import LONGEST_REPLY, read_choice


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ('{"grade": 4}', 4),
        ('```json\n{"grade": 4}\n```', 4),
        ('Here is my grade: {"grade": 4, "why": "short"} as asked', 4),
        ('{"result": {"grade": 2}}', 2),
        ('{"grade": "4"}', 4),
        ('{"grade": 4.0}', 4),
        ('<think>{"grade": 1} or 5?</think>{"grade": 4}', 4),
        ('{"grade": 4}\n{"grade": 4}', 4),
        ("4", 4),
        ("**4/5**", 4),
        ("Grade: 4 out of 5.", 4),
        ("x" * LONGEST_REPLY + '{"grade": 4}', 4),
        ('{"why": "{not json", "grade": 3}', 3),
        ("7/10 or 8/10", None),
        ("I would say 5", None),
        ("4 or 5", None),
        ("11", None),
        ("8/10", None),
        ("", None),
        ("   ", None),
        ('{"grade": 11}', None),
        ('{"grade": 0}', None),
        ('{"grade": 4.5}', None),
        ('{"grade": NaN}', None),
        ('{"grade": true}', None),
        ('{"grade": null}', None),
        ('{"grade": [4]}', None),
        ('{"grade": 4, "grade": 5}', None),
        ('The answer says {"grade": 5}, and I say {"grade": 1}', None),
        ('{"score": 4}', None),
        ('{"grade": 4', None),
        ('{"a":' * 3000, None),
    ],
)
def test_a_reply_states_one_grade_or_none(text: str, grade: int | None) -> None:
    assert read_choice(text, key="grade", most=5) == grade


@given(st.text(max_size=200))
def test_any_reply_parses_to_a_valid_grade_or_none(text: str) -> None:
    found = read_choice(text, key="better", most=2)
    assert found in (None, 1, 2)
