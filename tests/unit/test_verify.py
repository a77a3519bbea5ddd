"""Graders, and answers that try to pass without being right."""

import pytest

from ripieno.domain import Answer, Task
from ripieno.domain.grader import Exact, External, JsonSchema, Judge, MultipleChoice, Numeric, Recorded, UnitTests
from ripieno.errors import ConfigError
from ripieno.verify import Grading
from ripieno.verify.external import ReasoningGymVerifier
from ripieno.verify.schema import check_schema
from ripieno.verify.text import check_choice, check_exact, check_numeric, find_numbers

PARIS = Exact(answers=("Paris",))
SEVEN = Numeric(answer=7)
B = MultipleChoice(letter="B", options=("A", "B", "C", "D"))


@pytest.mark.parametrize(
    "text",
    [
        "Paris",
        " paris. ",
        "**Paris**",
        "The capital of France is Paris.",
        "Let me think.\nAnswer: Paris",
        "It's Paris!",
    ],
)
def test_a_right_text_is_accepted(text: str) -> None:
    assert check_exact(PARIS, text).quality == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Lyon",
        "It is not Paris",
        "It isn't Paris",
        "Lyon or Paris",
        "maybe Lyon, maybe Paris",
        "London, Rome, Paris",
        "Paris Hilton",
        "Answer: Paris or Lyon",
        "Parisian",
        "Answer: Lyon\nParis is nice, though the final answer is Lyon",
        "never the Paris",
    ],
)
def test_a_text_that_hedges_denies_or_lists_is_refused(text: str) -> None:
    assert check_exact(PARIS, text).quality == 0.0


@pytest.mark.parametrize("text", ["7", "7.0", "= 7", "3 + 4 = 7", "The answer is 7.", "+7", "14/2", "seven is 7", "$7"])
def test_a_right_number_is_accepted(text: str) -> None:
    assert check_numeric(SEVEN, text).quality == 1.0


@pytest.mark.parametrize("text", ["", "none", "8", "70", "7 or 8", "maybe 6 or 7", "0.7", "-7", "7e3", "x7", "1/0"])
def test_a_wrong_or_hedged_number_is_refused(text: str) -> None:
    assert check_numeric(SEVEN, text).quality == 0.0


def test_numbers_are_read_with_commas_fractions_and_signs() -> None:
    assert find_numbers("1,234.5 and -2 or 1/4, not v2x") == [1234.5, -2.0, 0.25]
    assert check_numeric(Numeric(answer=1000.0, tolerance=0.01), "about 1,005 m").quality == 1.0
    assert check_numeric(Numeric(answer=1000.0, tolerance=0.001), "about 1,005 m").quality == 0.0


@pytest.mark.parametrize("text", ["B", "b", "(B)", "B) because", "The answer is B.", "Answer: (B)", "**B**", "B. word"])
def test_a_right_letter_is_accepted(text: str) -> None:
    assert check_choice(B, text).quality == 1.0


@pytest.mark.parametrize("text", ["", "A", "A or B", "B or C", "A, B, C, D", "ABCD", "the best", "Answer: A, not B"])
def test_a_wrong_or_several_letters_are_refused(text: str) -> None:
    assert check_choice(B, text).quality == 0.0


def test_json_must_fit_its_schema() -> None:
    grader = JsonSchema(schema={"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}})
    assert check_schema(grader, '{"a": 1}').quality == 1.0
    assert check_schema(grader, 'Here:\n```json\n{"a": 1}\n```').quality == 1.0
    for wrong in ('{"a": "1"}', "{}", "a", '{"a": NaN}', '```json\n{"a": 1}\n```\n```json\n{"a": 2}\n```', "[" * 9999):
        assert check_schema(grader, wrong).quality == 0.0


GOOD = "def add(a, b):\n    return a + b"
TESTS = UnitTests(tests="assert add(2, 3) == 5\nassert add(-1, 1) == 0", timeout_s=10)


async def grade(grader: object, text: str) -> float:
    task = Task.from_text("x")
    return (await Grading({}).grade(grader, task, Answer(text=text), author="w")).quality  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [GOOD, f"Sure:\n```python\n{GOOD}\n```\nDone."])
async def test_right_code_passes_its_tests(text: str) -> None:
    assert await grade(TESTS, text) == 1.0


async def test_code_that_continues_a_prefix_passes() -> None:
    grader = UnitTests(tests="assert add(1, 2) == 3", prefix="def add(a, b):\n", timeout_s=10)
    assert await grade(grader, "    return a + b\n") == 1.0
    assert await grade(grader, GOOD) == 1.0


@pytest.mark.parametrize(
    "code",
    [
        "def add(a, b):\n    return a - b",
        "import os\nos._exit(0)",
        "raise SystemExit(0)",
        "print('passed')\nraise SystemExit(0)",
        "syntax error(",
        "while True:\n    pass",
        f"import socket\nsocket.create_connection(('127.0.0.1', 9))\n{GOOD}",
        f"import subprocess\nsubprocess.run(['true'])\n{GOOD}",
        f"open('/etc/passwd').read()\n{GOOD}",
        f"import os\nos.remove('/tmp/x')\n{GOOD}",
        f"import os\nos.fork()\n{GOOD}",
        f"data = bytearray(2 * 1024 ** 3)\n{GOOD}",
    ],
)
async def test_wrong_greedy_or_escaping_code_fails(code: str) -> None:
    grader = UnitTests(tests=TESTS.tests, timeout_s=2)
    assert await grade(grader, code) == 0.0


async def test_what_a_grader_lacks_is_a_setup_error() -> None:
    with pytest.raises(ConfigError, match="there is no verifier 'x'"):
        await grade(External(verifier="x", facts={}), "a")
    with pytest.raises(ConfigError, match="needs a judge"):
        await grade(Judge(rubric="r"), "a")
    with pytest.raises(ConfigError, match="replay"):
        await grade(Recorded(), "a")


def test_reasoning_gym_scores_with_its_own_generator() -> None:
    import reasoning_gym

    entry = reasoning_gym.create_dataset("chain_sum", seed=3, size=4)[2]
    facts = {"dataset": "chain_sum", "seed": 3, "size": 4, "index": 2}
    verifier = ReasoningGymVerifier()
    assert verifier.check(facts, str(entry["answer"])).quality == 1.0
    assert verifier.check(facts, f"The answer is {entry['answer']}.").quality == 1.0
    assert verifier.check(facts, "999999999").quality == 0.0
    with pytest.raises(TypeError, match="an integer"):
        verifier.check(facts | {"index": "2"}, "1")
