"""Mistakes of people who are new to it: each is refused or shown, and none is answered with success."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.integration.conftest import ADMIN, LACKS_KEY, Serve, open_app, open_gateway, write_pool

from ripieno.app import Installation
from ripieno.app.pool_file import NewWorker, add_worker
from ripieno.app.remembering import beat_memory
from ripieno.cli.main import cli
from ripieno.config import load_settings
from ripieno.errors import ConfigError, InvalidTask, MemoryUnavailable
from ripieno.testing import Reply


def test_adding_a_worker_never_changes_the_address_of_a_known_provider(serve: Serve) -> None:
    path = write_pool(serve())
    before = path.read_text()
    new = NewWorker(id="extra", provider="a", facts={"price": "free"}, base_url="http://127.0.0.1:1/v1")
    with pytest.raises(InvalidTask, match="already, with another address"):
        add_worker(path, new)
    assert path.read_text() == before
    address = load_settings(path).settings.providers["a"].model_extra
    assert address is not None
    add_worker(path, NewWorker(id="extra", provider="a", facts={"price": "free"}, base_url=address["base_url"]))
    assert "extra" in load_settings(path).settings.workers


def test_a_ledger_that_is_not_there_is_not_verified_and_not_made(tmp_path: Path) -> None:
    ran = CliRunner().invoke(cli, ["ledger", "verify"])
    assert isinstance(ran.exception, ConfigError)
    assert "there is no ledger at" in ran.exception.message
    assert not (tmp_path / ".ripieno").exists()


@pytest.mark.parametrize("key", ["  ", "two words", "ключ"])
def test_a_key_that_no_header_can_carry_is_refused(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPIENO_GATEWAY__API_KEY", key)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert "printable ASCII characters" in caught.value.message
    assert key not in f"{caught.value.message} {caught.value.hint}" or not key.strip()


async def test_a_damaged_memory_file_is_an_outage(serve: Serve) -> None:
    write_pool(serve())
    async with open_app() as app:
        await beat_memory(app)
        assert not app.has_memory, "a memory that nobody uses is not opened"
        (app.runtime.settings.home / "memory.db").write_bytes(b"\x00\x01 no database" * 500)
        with pytest.raises(MemoryUnavailable):
            await beat_memory(app)


def test_the_list_of_workers_names_one_that_cannot_be_opened(serve: Serve) -> None:
    write_pool(serve(), extra=LACKS_KEY)
    listed = json.loads(CliRunner().invoke(cli, ["pool", "list", "--json"]).stdout)
    assert {row["worker"]: row["state"] for row in listed} == {"a": "ready", "far": "unavailable"}
    assert "has no API key" in listed[1]["fault"]


async def test_health_and_metrics_name_a_worker_that_cannot_be_opened(serve: Serve) -> None:
    write_pool(serve(), extra=LACKS_KEY)
    async with open_gateway() as (_, address, client):
        async with client.get(f"{address}/healthz") as response:
            assert (await response.json())["unavailable"] == ["far"]
        async with client.get(f"{address}/metrics", headers=ADMIN) as response:
            shown = await response.text()
        assert 'ripieno_worker_healthy{worker="a"} 1.0' in shown
        assert 'ripieno_worker_healthy{worker="far"} 0.0' in shown


async def test_embeddings_of_a_worker_without_them_are_a_mistake_of_the_caller(serve: Serve) -> None:
    text = '[providers.own]\nkind = "callable"\n[workers.own]\nprovider = "own"\nmodel = "math:sqrt"\nprice = "free"\n'
    write_pool(serve(), extra=text)
    async with open_gateway() as (_, address, client):
        body = {"model": "own", "input": "tea"}
        async with client.post(f"{address}/v1/embeddings", json=body) as response:
            assert response.status == 400
            assert "makes no embeddings" in (await response.json())["error"]["message"]


def test_the_line_to_copy_reads_the_key_and_names_an_address_of_this_machine(serve: Serve) -> None:
    write_pool(serve())
    code = (
        "from ripieno.cli.serve import _announce; from ripieno.app import Installation\n"
        "_announce(Installation(), 'http://0.0.0.0:5999', key=None)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert "curl http://127.0.0.1:5999/v1" in told
    assert '-H "authorization: Bearer $RIPIENO_GATEWAY__API_KEY"' in told


def test_a_file_with_a_byte_order_mark_is_read(serve: Serve) -> None:
    path = write_pool(serve())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert list(load_settings().settings.workers) == ["a"]
    for action in ("mute", "unmute"):
        ran = CliRunner().invoke(cli, ["pool", action, "a"])
        assert ran.exit_code == 0, f"{ran.output} {ran.exception}"


@pytest.mark.parametrize("value", ["sk-a\r\nx: y", "sk-a\n"])
def test_a_key_of_a_provider_with_a_line_break_is_refused(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    write_pool(serve(), options='api_key_env = "SOME_KEY"')
    monkeypatch.setenv("SOME_KEY", value)
    ran = CliRunner().invoke(cli, ["pool", "list", "--json"])
    assert "line break or a control character" in f"{ran.stdout} {ran.exception}"
    assert value.strip() not in f"{ran.stdout} {ran.exception}"


@pytest.mark.parametrize(
    ("table", "key"),
    [("memory", "compact_worker"), ("memory", "extract_worker"), ("conductor", "worker"), ("profile", "judge")],
)
async def test_a_worker_with_effects_is_refused_for_calls_beside_requests(serve: Serve, table: str, key: str) -> None:
    path = write_pool(serve(), serve())
    plain = path.read_text()
    named = plain.replace("[workers.b]", "[workers.b]\nhas_effects = true") + f'\n[{table}]\n{key} = "b"\n'
    path.write_text(named)
    with pytest.raises(ConfigError, match=rf"{table}.{key} names .b., whose calls have effects"):
        Installation(load_settings())
    path.write_text(plain)
    async with open_app() as app:
        path.write_text(named)
        assert getattr(getattr(app.runtime.settings, table), key) is None
        assert f"{table}.{key}" in (app.reload_fault or "")


def test_a_key_for_a_worker_that_does_not_exist_is_refused(serve: Serve) -> None:
    write_pool(serve())
    ran = CliRunner().invoke(cli, ["keys", "create", "team", "--worker", "ghost"])
    assert "no worker is called 'ghost'" in str(ran.exception)
    assert json.loads(CliRunner().invoke(cli, ["keys", "list", "--json"]).stdout) == []


def test_a_damaged_checkpoint_is_listed_as_such(serve: Serve) -> None:
    write_pool(serve())
    folder = Path(".ripieno/checkpoints/stack-1")
    folder.mkdir(parents=True)
    (folder / "card.json").write_text("{")
    (folder.parent / "current").write_text("stack-1")
    (row,) = json.loads(CliRunner().invoke(cli, ["policy", "list", "--json"]).stdout)
    assert (row["checkpoint"], row["state"]) == ("stack-1", "in traffic")
    assert "damaged" in row["verdict"]
    ran = CliRunner().invoke(cli, ["route", "hello"])
    assert isinstance(ran.exception, ConfigError)
    assert "checkpoints/current" in (ran.exception.hint or "")


async def test_every_choice_of_a_stream_reaches_a_client_that_asks_for_several(serve: Serve) -> None:
    chunks: list[dict[str, object]] = [
        {"choices": [{"index": n, "delta": {"content": text}, "finish_reason": None}]}
        for n, text in ((0, "one"), (1, "two"))
    ]
    chunks += [{"choices": [{"index": n, "delta": {}, "finish_reason": "stop"}]} for n in (0, 1)]
    raw = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    write_pool(serve([Reply(raw=raw.encode(), content_type="text/event-stream")]))
    async with open_gateway() as (_, address, client):
        body = {"model": "a", "n": 2, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        async with client.post(f"{address}/v1/chat/completions", json=body) as response:
            told = (await response.read()).decode()
    assert "one" in told
    assert "two" in told
    assert told.count('"finish_reason": "stop"') + told.count('"finish_reason":"stop"') == 2
