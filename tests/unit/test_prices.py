"""Prices: found in the bundled list by name and address, or unknown; never zero by accident."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripieno.app.build import build_pool
from ripieno.config import load_settings
from ripieno.domain import (
    FREE,
    UNKNOWN,
    Binding,
    Message,
    Price,
    Task,
    Tier,
    Usage,
    Worker,
    WorkerId,
    bound_call,
    cap_output,
    sum_costs,
)
from ripieno.domain.conversation import (
    Media,
    MediaKind,
    Opaque,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from ripieno.errors import ConfigError
from ripieno.providers.prices import describe_list, find_price
from ripieno.wires.usage import read_chat_usage

OPENROUTER = "https://openrouter.ai/api/v1"
VERTEX = "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1/endpoints/openapi"
BEDROCK = "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1"
GEMINI = "https://generativelanguage.googleapis.com/v1beta/openai/"
OPENAI = "https://api.openai.com/v1"


def test_the_cases_of_other_projects_hold() -> None:
    path = Path(__file__).parents[3] / "shared" / "cases" / "prices.jsonl"
    if not path.exists():
        pytest.skip("no shared/cases/prices.jsonl beside the project: this test reads it where it is")
    for line in path.read_text().splitlines():
        case = json.loads(line)
        price = find_price(case["model"], base_url=case["base_url"])
        if case["input_usd_per_mtok"] == "unknown":
            assert price == UNKNOWN, case
            continue
        assert price.is_known, case
        for name in ("input_usd_per_mtok", "output_usd_per_mtok"):
            assert getattr(price, name) > 0.0, case
            assert case[name] is None or getattr(price, name) == pytest.approx(case[name]), case


@pytest.mark.parametrize(
    ("model", "base_url", "rates"),
    [
        ("openai/gpt-4o", None, (2.5, 10.0)),
        ("gpt-4o-2024-08-06", OPENAI, (2.5, 10.0)),
        ("openai/gpt-4o:nitro", OPENROUTER, (2.5, 10.0)),
        ("claude-sonnet-4-20250514", None, (3.0, 15.0)),
        ("claude-sonnet-4@20250514", VERTEX, (3.0, 15.0)),
        ("models/gemini-2.5-pro", GEMINI, (1.25, 10.0)),
        ("google/gemini-2.5-pro", VERTEX, (1.25, 10.0)),
        ("publishers/google/models/gemini-2.5-pro", None, (1.25, 10.0)),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", BEDROCK, (3.0, 15.0)),
        ("bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0", None, (3.0, 15.0)),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", None, (3.0, 15.0)),
        ("gpt-4o", "https://team.openai.azure.com/openai/v1", (2.5, 10.0)),
        ("azure/gpt-4o", None, (2.5, 10.0)),
        ("ft:gpt-4o-mini:org::id", OPENAI, (0.3, 1.2)),
        ("ft:gpt-4o-mini-2024-07-18:org::id", None, (0.3, 1.2)),
        ("groq/llama-3.3-70b-versatile", None, (0.59, 0.79)),
        ("text-embedding-3-small", OPENAI, (0.02, 0.0)),
        ("gpt-4o-mini", "http://127.0.0.1:4000/v1", (0.15, 0.6)),
        ("openai/gpt-4o", "https://llm.example.com/v1", (2.5, 10.0)),
    ],
)
def test_a_name_finds_its_list_price(model: str, base_url: str | None, rates: tuple[float, float]) -> None:
    price = find_price(model, base_url=base_url)
    assert price.is_known
    assert (price.input_usd_per_mtok, price.output_usd_per_mtok) == pytest.approx(rates)


@pytest.mark.parametrize(
    ("model", "base_url"),
    [
        ("claude-opus-4-9", "https://api.anthropic.com/v1"),
        ("anthropic/claude-opus-4-9", OPENROUTER),
        ("gpt-9-turbo", OPENAI),
        ("gpt-4o-9999-zz", OPENAI),
        ("openrouter/auto", OPENROUTER),
        ("gemma-3-27b-it", GEMINI),
        ("llama3.2", "http://localhost:11434/v1"),
        ("gpt-oss:20b", "http://localhost:11434/v1"),
        ("mistral-small", "http://127.0.0.1:8080/v1"),
        ("mistral/mistral-small", "http://127.0.0.1:8080/v1"),
        ("own:free", "http://127.0.0.1:8080/v1"),
        ("nobody-ever-heard-of-it", None),
        ("nobody/ever-heard-of-it", None),
        ("ft:nobody:org::id", OPENAI),
    ],
)
def test_a_model_outside_the_list_has_an_unknown_price(model: str, base_url: str | None) -> None:
    assert find_price(model, base_url=base_url) == UNKNOWN
    assert find_price(model, base_url=base_url).charge(input_tokens=10, output_tokens=10, cpu_s=1.0) is None


def test_the_tag_free_counts_only_for_openrouter() -> None:
    assert find_price("deepseek/deepseek-chat:free", base_url=OPENROUTER).is_free
    assert find_price("openrouter/deepseek/deepseek-chat:free").is_free


def test_a_provider_can_be_named_without_an_address() -> None:
    assert find_price("llama-3.3-70b-versatile", provider="groq").input_usd_per_mtok == pytest.approx(0.59)
    assert find_price("llama-3.3-70b-versatile", provider="nobody") == UNKNOWN


def test_a_long_prompt_has_the_price_of_its_tier() -> None:
    price = find_price("gemini-2.5-pro")
    assert price.charge(input_tokens=300_000, output_tokens=1_000, cpu_s=0.0) == pytest.approx(0.765)
    assert price.charge(input_tokens=200_000, output_tokens=1_000, cpu_s=0.0) == pytest.approx(0.26)


def test_a_price_that_changes_with_the_hour_is_the_highest() -> None:
    assert find_price("deepseek-chat", base_url="https://api.deepseek.com/v1").output_usd_per_mtok == pytest.approx(1.1)


def test_the_list_has_a_date() -> None:
    found = describe_list()
    assert found.version
    assert found.changed_on.year >= 2025


def test_cached_written_and_spoken_tokens_have_their_own_rates() -> None:
    price = Price(
        input_usd_per_mtok=10.0, output_usd_per_mtok=20.0, cached_usd_per_mtok=1.0, cache_write_usd_per_mtok=12.5,
        audio_input_usd_per_mtok=40.0, audio_output_usd_per_mtok=80.0,
    )  # fmt: skip
    usage = Usage(
        input_tokens=1000, output_tokens=100, cached_tokens=300, cache_write_tokens=200, audio_input_tokens=100,
        audio_output_tokens=50, reasoning_tokens=20,
    )  # fmt: skip
    expected = (400 * 10 + 300 * 1 + 200 * 12.5 + 100 * 40 + 50 * 20 + 50 * 80) / 1e6
    assert price.price(usage) == pytest.approx(expected)
    assert price.price(Usage(input_tokens=10, cached_tokens=99)) == pytest.approx(10 / 1e6), "no more than was read"


def test_the_cost_that_a_provider_states_counts() -> None:
    assert UNKNOWN.price(Usage(cost_usd=0.25)) == 0.25
    assert Price(usd_per_call=1.0).price(Usage(cost_usd=0.25)) == 0.25


@pytest.mark.parametrize(
    ("stated", "cost"),
    [
        ({"cost": 0.0012}, 0.0012),
        ({"cost": 0}, 0.0),
        ({"cost": {"total_cost": 0.006, "request_cost": 0.005}}, 0.006),
        ({"cost": 0.0001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.002}}, 0.0021),
        ({"cost": 0.0001, "is_byok": True}, None),
        ({"cost": -1}, None),
        ({"cost": "0.1"}, None),
        ({"cost": True}, None),
        ({"cost": float("inf")}, None),
        ({}, None),
    ],
)
def test_usage_contains_the_price_that_the_provider_states(stated: dict[str, object], cost: float | None) -> None:
    found = read_chat_usage({"prompt_tokens": 10, "completion_tokens": 5} | stated).cost_usd
    assert found == (None if cost is None else pytest.approx(cost))


def test_reasoning_counts_as_output_if_only_the_total_has_it() -> None:
    gemini = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115}
    assert read_chat_usage(gemini).output_tokens == 105
    grok = gemini | {"completion_tokens_details": {"reasoning_tokens": 100}}
    assert (read_chat_usage(grok).output_tokens, read_chat_usage(grok).reasoning_tokens) == (105, 100)
    openai = {"prompt_tokens": 10, "completion_tokens": 105, "total_tokens": 115}
    assert read_chat_usage(openai | {"completion_tokens_details": {"reasoning_tokens": 100}}).output_tokens == 105


def test_usage_contains_cached_and_written_tokens() -> None:
    usage = read_chat_usage(
        {
            "prompt_tokens": 100,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30, "audio_tokens": 7},
            "completion_tokens_details": {"audio_tokens": 2},
        }
    )
    assert (usage.cached_tokens, usage.cache_write_tokens) == (60, 30)
    assert (usage.audio_input_tokens, usage.audio_output_tokens) == (7, 2)
    assert read_chat_usage({"prompt_cache_hit_tokens": 9, "cache_creation_input_tokens": 4}).cached_tokens == 9
    assert read_chat_usage({"cache_creation_input_tokens": 4}).cache_write_tokens == 4


def pool_with(card: str, provider: str = 'kind = "openai"\nbase_url = "http://127.0.0.1:9/v1"') -> Price:
    Path("ripieno.toml").write_text(f"[providers.p]\n{provider}\n[workers.w]\nprovider = 'p'\n{card}\n")
    return build_pool(load_settings().settings)["w"].price


def test_a_card_states_its_price_or_is_unknown() -> None:
    assert pool_with("") == UNKNOWN
    assert pool_with("price = 'free'") == FREE
    assert pool_with("input_usd_per_mtok = 0\noutput_usd_per_mtok = 0").is_free
    assert pool_with("usd_per_call = 0.01") == Price(usd_per_call=0.01)
    reading = pool_with("input_usd_per_mtok = 1.0")
    assert reading.charge(input_tokens=1000, output_tokens=0, cpu_s=0.0) == pytest.approx(0.001)
    assert reading.charge(input_tokens=1000, output_tokens=1, cpu_s=0.0) is None, "nobody says what answers cost"
    assert bound_call(make(reading), Task.from_text("x")) is None
    assert not pool_with("output_usd_per_mtok = 1.0\nusd_per_call = 0.1").is_known
    assert pool_with("model = 'gpt-4o-mini'\ninput_usd_per_mtok = 1.0").output_usd_per_mtok == pytest.approx(0.6)
    assert pool_with("model = 'gpt-4o-mini'", "kind = 'callable'").is_known, "only its maker serves it"
    with pytest.raises(ConfigError, match=r'"free" and states usd_per_call'):
        pool_with("price = 'free'\nusd_per_call = 0.01")


def test_the_address_of_the_provider_determines_the_price() -> None:
    provider = f'kind = "openai"\nbase_url = "{OPENROUTER}"'
    price = pool_with('model = "google/gemini-2.5-flash"', provider)
    assert (price.input_usd_per_mtok, price.output_usd_per_mtok) == pytest.approx((0.3, 2.5))
    tiered = pool_with('model = "gemini-2.5-pro"\ninput_usd_per_mtok = 1.0', f'kind = "openai"\nbase_url = "{GEMINI}"')
    assert tiered.tiers[0].input_usd_per_mtok == 1.0
    assert tiered.tiers[0].output_usd_per_mtok == pytest.approx(15.0)


def test_a_sum_says_how_much_of_it_is_unknown() -> None:
    assert sum_costs([0.5, None, 0.25]) == (0.75, 1)
    assert sum_costs([]) == (0.0, 0)


def make(price: Price, **fields: object) -> Worker:
    binding = Binding(provider="p", model=str(fields.pop("model", "m")), options=fields.pop("options", {}))  # type: ignore[arg-type]
    return Worker(id=WorkerId("w"), binding=binding, price=price, **fields)  # type: ignore[arg-type]  # fields of a card


TOKENS = Price(input_usd_per_mtok=2.0, output_usd_per_mtok=10.0)


@given(
    text=st.text(alphabet=st.characters(codec="utf-8"), max_size=300),
    limit=st.integers(1, 5000),
    share=st.floats(0.0, 1.2),
)
def test_no_answer_that_is_allowed_costs_more_than_is_held_back(text: str, limit: int, share: float) -> None:
    task = Task(messages=(Message(role="user", content=text),), params={"max_tokens": limit})
    bound = bound_call(make(TOKENS), task)
    assert bound is not None
    assert bound.least_usd <= bound.most_usd
    held = bound.least_usd + share * (bound.most_usd - bound.least_usd)
    tokens = bound.afford(held)
    assert 1 <= tokens <= limit
    read = int(len(text.encode()) / 2)
    cost = TOKENS.charge(input_tokens=read, output_tokens=tokens, cpu_s=0.0)
    assert cost is not None
    assert cost <= held + 1e-12


def test_a_bound_counts_samples_tools_pictures_and_sound() -> None:
    plain = bound_call(make(TOKENS), Task.from_text("x" * 100))
    assert plain is not None
    assert (plain.output_tokens, plain.is_limited) == (16_384, False)
    several = bound_call(make(TOKENS, options={"samples": 3, "params": {"max_tokens": 10}}), Task.from_text("x"))
    assert several is not None
    assert several.output_tokens == 10
    assert several.usd_per_token == pytest.approx(3e-5)
    image, audio = MediaKind.IMAGE, MediaKind.AUDIO
    parts = (
        Text(text="x"),
        Refusal(text="no"),
        Reasoning(text="hm", sealed="s"),
        Media(kind=image, data="xx", media_type="image/png"),
        Media(kind=MediaKind.DOCUMENT, data="words", media_type="text/plain"),
        ToolCall(id="c", name="f"),
        Opaque(wire="chat", kind="new", raw={}),
        ToolResult(call="c", content=(Media(kind=audio, data="x" * 20_000, media_type="audio/wav"),)),
    )
    rich = Task(
        messages=(Message(role="user", content=parts, extra={"name": "n"}),),
        tools=({"type": "function"},),
        params={"n": 2, "max_completion_tokens": 5, "max_tokens": 9},
    )
    bound = bound_call(make(TOKENS, max_output_tokens=3), rich)
    assert bound is not None
    assert bound.output_tokens == 3
    assert bound.least_usd > 4_000 * 2.0 / 1e6


def test_the_dearest_reading_of_a_long_prompt_is_held_back() -> None:
    tier = Tier(above_tokens=100, input_usd_per_mtok=4.0, output_usd_per_mtok=20.0, cache_write_usd_per_mtok=5.0)
    price = Price(input_usd_per_mtok=2.0, output_usd_per_mtok=10.0, tiers=(tier,))
    short, long = (bound_call(make(price, max_output_tokens=1), Task.from_text("x" * size)) for size in (10, 1000))
    assert short is not None
    assert long is not None
    assert short.usd_per_token == pytest.approx(1e-5)
    assert long.usd_per_token == pytest.approx(2e-5)
    assert long.least_usd == pytest.approx(509 * 5.0 / 1e6 + 2e-5)


def test_a_worker_that_charges_time_or_calls_needs_no_limit() -> None:
    bound = bound_call(make(Price(usd_per_cpu_s=1e-5, usd_per_call=1e-3)), Task.from_text("x"))
    assert bound is not None
    assert (bound.least_usd, bound.most_usd) == pytest.approx((1e-3, 1.01e-3))
    assert bound.is_limited
    assert bound.afford(bound.least_usd) == bound.output_tokens
    assert bound_call(make(UNKNOWN), Task.from_text("x")) is None


def test_a_limit_is_written_where_the_worker_reads_it() -> None:
    task = Task.from_text("x")
    assert cap_output(make(TOKENS), task, 7).params == {"max_tokens": 7}
    assert cap_output(make(TOKENS, model="openai/o3-mini"), task, 7).params == {"max_completion_tokens": 7}
    stated = Task(messages=task.messages, params={"max_completion_tokens": 900, "max_tokens": 50, "top_p": 1})
    assert cap_output(make(TOKENS), stated, 7).params == {"max_completion_tokens": 7, "top_p": 1}
    options = {"params": {"max_completion_tokens": 50}}
    assert cap_output(make(TOKENS, options=options), task, 7).params == {"max_completion_tokens": 7}


def test_a_price_is_not_negative() -> None:
    with pytest.raises(ValueError, match="cached_usd_per_mtok must not be negative"):
        Price(cached_usd_per_mtok=-1.0)
