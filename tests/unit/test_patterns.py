"""Untrusted patterns and schemas: refused when they are read, limited when they are used."""

import json
import time
from dataclasses import replace

import pytest

from ripieno.domain.grader import JsonSchema, Pattern
from ripieno.errors import ConfigError, Forbidden, InvalidTask
from ripieno.gateway.objective import ModelNames, parse_request_options
from ripieno.tasks.graders import read_check
from ripieno.tasks.patterns import compile_pattern, matches, occurs
from ripieno.tasks.schemas import find_fault, read_schema
from ripieno.verify.jailed.extract import extract_code, list_blocks
from ripieno.verify.schema import check_schema, fits_schema
from ripieno.verify.text import check_pattern, find_numbers


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"(a)\1", r"a reference to a group, \\1"),
        ("a(?=b)", "a lookahead"),
        ("a(?!b)", "a negative lookahead"),
        ("(?<=a)b", "a lookbehind"),
        ("(?<!a)b", "a lookbehind"),
        ("(?>a)", "an atomic group"),
        ("(?P<x>a)(?P=x)", "by name"),
        ("(?(1)a|b)", "a condition"),
        ("(", r"missing \)"),
        ("a{1,5000}", "invalid repetition size"),
        ("a" * 2001, "the limit is 2000"),
        ("(a{30}b{30}){30}(c{30}d{30}){30}(e{30}f{30}){30}", "the limit is 4000"),
        ("\ud800", "surrogate"),
    ],
)
def test_an_unsupported_pattern_is_refused_by_name(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compile_pattern(pattern)
    with pytest.raises(ValueError, match=f"check.pattern.pattern: .*{said}"):
        read_check({"kind": "pattern", "pattern": pattern})
    with pytest.raises(ConfigError, match="cannot be used"):
        check_pattern(Pattern(pattern=pattern), "a")


def test_a_pattern_matches_the_answer_or_the_text_in_linear_time() -> None:
    assert check_pattern(Pattern(pattern=r"\d+ apples"), "I count.\nAnswer: 12 apples").quality == 1.0
    assert check_pattern(Pattern(pattern=r"\d+ apples"), "some apples").quality == 0.0
    assert matches("(a+)+", "a" * 60_000)
    began = time.process_time()
    assert not matches("((a+)+|(a|aa)+)b", "a" * 60_000)
    assert time.process_time() - began < 5.0
    assert occurs("b.d", "abcde")
    assert not occurs("b.d", "abc\ud800")


LADDER = {f"s{n}": {"anyOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(40)} | {"s40": {}}
"""Few parts, that come to two to the power of 40."""


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"$ref": "http://127.0.0.1:1/schema"}, "only references within it"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "only references within it"),
        ({"$ref": "#"}, "in a circle"),
        ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}}, "in a circle"),
        ({"$ref": "#/$defs/none"}, "does not contain"),
        ({"$ref": "#none"}, "does not contain"),
        ({"$dynamicRef": "#x"}, "not supported"),
        ({"items": {"$id": "x"}}, "cannot have an"),
        ({"pattern": "(?=a)"}, "a lookahead"),
        ({"patternProperties": {r"(a)\1": {}}}, "a reference to a group"),
        ({"patternProperties": {"a": {}}, "unevaluatedProperties": False}, "not supported"),
        ({"enum": list(range(6000))}, None),
        ({"allOf": [{}] * 6000}, "5,000 parts"),
        ({"type": "nonsense"}, "wrong at type"),
        ({"$ref": "#/$defs/s0", "$defs": LADDER}, "followed"),
    ],
)  # fmt: skip
def test_a_schema_is_refused_when_it_is_read(schema: dict[str, object], said: str | None) -> None:
    raw = {"kind": "json_schema", "schema": schema}
    if said is None:
        read_check(raw)
        return
    with pytest.raises(ValueError, match=said):
        read_check(raw)
    with pytest.raises(ConfigError, match=said):
        check_schema(JsonSchema(schema=schema), "{}")
    assert fits_schema(schema, "{}")


def test_a_deep_schema_is_refused() -> None:
    deep: dict[str, object] = {}
    for _ in range(70):
        deep = {"items": deep}
    with pytest.raises(ValueError, match="64 levels"):
        read_schema(deep)


TREE = {
    "type": "object",
    "properties": {"name": {"$ref": "#name"}, "children": {"type": "array", "items": {"$ref": "#"}}},
    "additionalProperties": False,
    "patternProperties": {"^x-": {"type": "integer"}},
    "$defs": {"name": {"$anchor": "name", "type": "string", "pattern": "^[a-z]+$"}},
}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"name": "a", "children": [{"name": "b", "x-1": 3}]}, None),
        ({"name": "A"}, "at name"),
        ({"children": [{"name": "b", "x-1": "3"}]}, "at children/0/x-1"),
        ({"children": [{"other": 1}]}, "at children/0"),
    ],
)
def test_a_recursive_schema_is_supported(value: object, fault: str | None) -> None:
    found = find_fault(TREE, value)
    assert found is None if fault is None else found is not None and found.startswith(fault)


def test_checking_an_answer_against_a_schema_is_bounded() -> None:
    loose = {"items": {"anyOf": [*[{"type": "string"}] * 40, {"type": "integer"}]}}
    found = check_schema(JsonSchema(schema=loose), json.dumps([1] * 20_000))
    assert found.quality == 0.0
    assert "steps" in found.detail
    unique = JsonSchema(schema={"uniqueItems": True})
    assert check_schema(unique, json.dumps([{"a": n} for n in range(20_000)])).quality == 1.0
    assert check_schema(unique, '[1, true, "1", 1.5, [1]]').quality == 1.0
    assert check_schema(unique, "[1, 1.0]").quality == 0.0
    wanted = JsonSchema(schema={"additionalProperties": {"type": "integer"}})
    assert check_schema(wanted, '{"a": 1}').quality == 1.0
    assert check_schema(wanted, '{"a": "1"}').quality == 0.0
    nested = JsonSchema(schema={"items": {"$ref": "#"}})
    assert check_schema(nested, "[" * 900 + "]" * 900).quality == 0.0


@pytest.mark.parametrize("kind", ["unit_tests", "external"])
def test_requests_may_run_code_only_if_the_owner_allows_it(kind: str) -> None:
    from ripieno.domain import Objective

    facts: dict[str, object] = {"tests": "assert f()"} if kind == "unit_tests" else {"verifier": "v"}
    body = {"ripieno": {"check": {"kind": kind, **facts}}}
    with pytest.raises(Forbidden, match=kind) as caught:
        parse_request_options(body, "auto", {}, Objective(), ModelNames(workers=["w"]))
    assert "gateway.allow_code_checks" in (caught.value.hint or "")
    stated = parse_request_options(body, "auto", {}, Objective(), ModelNames(workers=["w"], allows_code=True))
    assert stated.check is not None


@pytest.mark.parametrize(
    ("body", "model", "headers", "param"),
    [
        ({"ripieno": {"task_kind": "k" * 101}}, "auto", {}, "ripieno.task_kind"),
        ({}, "auto", {"x-ripieno-task-kind": "k" * 300}, "ripieno.task_kind"),
        ({"ripieno": {"session": "s" * 513}}, "auto", {}, "ripieno.session"),
        ({"metadata": {"user_id": "s" * 513}}, "auto", {}, "ripieno.session"),
        ({"ripieno": {"memory": {"project": "p" * 513}}}, "auto", {}, "ripieno.memory.project"),
        ({"ripieno": {"workers": ["w" * 513]}}, "auto", {}, "ripieno.workers"),
        ({"ripieno": {"workers": ["w"] * 1001}}, "auto", {}, "ripieno.workers"),
        ({}, "m" * 513, {}, "model"),
    ],
)
def test_names_in_a_request_have_a_maximum_length(
    body: dict[str, object], model: str, headers: dict[str, str], param: str
) -> None:
    from ripieno.domain import Objective

    with pytest.raises(InvalidTask) as caught:
        parse_request_options(body, model, headers, Objective(), ModelNames(workers=["w"]))
    assert caught.value.param == param


def test_code_extraction_takes_linear_time() -> None:
    began = time.process_time()
    for text in ("~" * 300_000 + "`", "```\n" * 100_000, "```json" + "\n" * 300_000, "`" * 300_000):
        list_blocks(text)
    assert time.process_time() - began < 5.0
    assert extract_code("def f():\n    pass\n", prefix="import os\ndef f():\n    '''Do.'''\n").startswith("import os")
    assert extract_code("    return 1\n", prefix="def f():\n") == "def f():\n    return 1\n"
    assert extract_code("Only words.") == "Only words."
    assert extract_code("Words:\nx = 1\nprint(x)\n\nThat is all, folks.") == "x = 1\nprint(x)\n"
    assert extract_code("```\nnot code (\n```\n```\nalso not (\n```\n").startswith("not code")


def test_number_extraction_takes_linear_time() -> None:
    began = time.process_time()
    assert find_numbers("111," * 50_000 + "x")
    assert find_numbers("(" * 200_000) == []
    assert time.process_time() - began < 5.0


def test_a_refused_response_schema_is_not_checked() -> None:
    from ripieno.domain import Task
    from ripieno.route.compose import read_schema as read_wanted

    for schema, is_checked in ({"type": "object"}, True), ({"$ref": "http://127.0.0.1:1/x"}, False), ("none", False):
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        task = replace(Task.from_text("x"), params={"response_format": wanted})
        assert (read_wanted(task) is not None) == is_checked
