"""The embedded pool: every worker always answers, and families separate their templates."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.config import load_settings
from ripieno.domain.grader import Exact, GradedTask, Numeric
from ripieno.embedded.baselines import choose_by_keyword
from ripieno.embedded.families import FAMILIES, generate_tasks
from ripieno.embedded.families.gym import generate_gym_tasks
from ripieno.embedded.workers import calc, dates, sentiment, spelling, strings, units
from ripieno.embedded.workers.expression import evaluate, read_number_words, write_number
from ripieno.errors import DataError
from ripieno.providers.callables import load_callable
from ripieno.verify.text import check_exact, check_numeric

SPECIALISTS = {
    name: load_callable(str(card.model), worker=name)
    for name, card in load_settings().settings.workers.items()
    if card.provider == "tools"
}


@pytest.mark.parametrize("name", sorted(SPECIALISTS))
@given(text=st.text(max_size=120))
@settings(max_examples=40, deadline=None)
def test_every_specialist_always_answers(name: str, text: str) -> None:
    assert isinstance(SPECIALISTS[name](text), str)
    assert SPECIALISTS[name](f"{text} What is 2 + 2 on 2024-02-30?")


def accepts(task: GradedTask, answer: str) -> float:
    match task.grader:
        case Exact() as grader:
            return check_exact(grader, answer).quality
        case Numeric() as grader:
            return check_numeric(grader, answer).quality
        case _:
            raise AssertionError(task.grader)


def test_families_separate_training_and_held_out_wordings() -> None:
    tasks = generate_tasks(train=40, test=20, seed=3)
    by_split = {s: {t.template for t in tasks if t.split == s} for s in ("train", "test")}
    assert not by_split["train"] & by_split["test"]
    for family in FAMILIES:
        assert len(family.train) >= 5
        assert len(family.test) >= 3
        assert not {t.text for t in family.train} & {t.text for t in family.test}
    for split in ("train", "test"):
        near = [t.is_near_miss for f in FAMILIES for t in (f.train if split == "train" else f.test)]
        assert 0.18 <= sum(near) / len(near) <= 0.25, "one in five carries the words of another family"
    texts = [t.task.text for t in tasks]
    assert len(set(texts)) == len(texts)
    assert generate_tasks(train=40, test=20, seed=3) == tasks
    assert [t.task.text for t in generate_tasks(train=40, test=20, seed=4)] != texts


def test_the_expensive_tier_is_better_and_no_specialist_leads_two_families() -> None:
    tasks = generate_tasks(train=30, test=20, seed=9)
    share = {
        (name, family.name): sum(accepts(t, act(t.task.text)) for t in tasks if t.family == family.name) / 50
        for name, act in SPECIALISTS.items()
        for family in FAMILIES
    }
    tiers = {"calc": "arithmetic", "units": "units", "dates": "dates", "strings": "strings"}
    for skill, family in tiers.items():
        dear = "calc-symbolic" if skill == "calc" else f"{skill}-exact"
        assert share[dear, family] >= 0.9
        assert 0.2 <= share[f"{skill}-quick", family] <= 0.8
    for name in SPECIALISTS:
        strong = [family for family in FAMILIES if share[name, family.name] > 0.5]
        assert len(strong) <= 2
    assert max(share[name, "facts"] for name in SPECIALISTS) <= 0.05, "only a language model knows facts"


@pytest.mark.parametrize(
    ("expression", "value"),
    [("2+3*4", 14.0), ("(2+3)*4", 20.0), ("7 % 4", 3.0), ("2 ** 10", 1024.0), ("-3 + +5", 2.0), ("8/2)", 4.0)],
)
def test_arithmetic_is_evaluated(expression: str, value: float) -> None:
    assert evaluate(expression) == value


@pytest.mark.parametrize("text", ["__import__('os')", "2**9999", "1/0", "a+1", "1 if 1 else 2", "", "True + 1", "f(2)"])
def test_nothing_but_arithmetic_is_evaluated(text: str) -> None:
    assert evaluate(text) is None


def test_specialists_do_what_they_say() -> None:
    assert calc.symbolic("What is 15 percent of 80?") == "12"
    assert calc.symbolic("Solve for x: 3x + 4 = 19") == "5"
    assert calc.symbolic("Subtract 4 from twenty-one") == "17"
    assert calc.symbolic("nothing here") == "0"
    assert calc.quick("there are 12 of them") == "12"
    assert units.exact("Convert 20 square meters to square feet") == "215.278"
    assert units.exact("how many parsecs") == "1"
    assert units.quick("5 km in kg") == "5"
    assert dates.exact("What date is 2 months before 3rd of March, 2024?") == "2024-01-03"
    assert dates.exact("How many weeks from 1/1/2024 to 1/29/2024?") == "4"
    assert dates.quick("2024-13-45") == "Monday"
    assert dates.quick("What is 10 days before 2024-01-05?") == "2023-12-26"
    assert strings.exact('What is the last word of "a b c"?') == "c"
    assert strings.exact('First letter of "word"') == "w"
    assert strings.exact('How many words are in "a b c"?') == "3"
    assert strings.exact('Write "ABC" in lower case') == "abc"
    assert strings.exact("?") == "?"
    assert spelling.deep("please fix teh") == "the"
    assert spelling.quick("zzzzqqqq") == "zzzzqqqq"
    assert sentiment.words("a terrible thing") == "negative"
    assert sentiment.lexicon("Classify: I love it") == "positive"
    assert read_number_words("twenty-one and seven") == "21 and 7"
    assert write_number(1 / 3) == "0.333333"


def test_the_keyword_rule_always_names_a_worker() -> None:
    workers = tuple(SPECIALISTS)
    assert choose_by_keyword("Fix the typo: teh", workers) == "speller-deep"
    assert choose_by_keyword("Name the capital of Peru.", workers) == workers[0]
    assert choose_by_keyword("Name the capital of Peru.", (*workers, "smollm2-135m")) == "smollm2-135m"


def test_gym_families_are_reproducible_and_untrusted_ones_refused() -> None:
    tasks = generate_gym_tasks(["chain_sum", "letter_counting"], count=6, seed=2)
    assert [task.split for task in tasks[:6]] == ["train"] * 4 + ["test"] * 2
    assert tasks == generate_gym_tasks(["chain_sum", "letter_counting"], count=6, seed=2)
    assert len({task.id for task in tasks}) == 12
    assert tasks[0].task.text
    for name, told in (("game_of_life_halting", "cannot be trusted"), ("no_such_family", "does not exist")):
        with pytest.raises(DataError, match=told):
            generate_gym_tasks([name], count=1, seed=1)
