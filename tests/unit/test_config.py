"""Settings: order of sources, origins, and every wrong key named with place and mend."""

from pathlib import Path

import pytest

from ripieno.app import build_pool
from ripieno.config import load_settings
from ripieno.domain import Privacy
from ripieno.errors import ConfigError

POOL = """
[providers.local_server]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"

[workers.small]
provider = "local_server"
model = "gpt-4o-mini"
privacy = "private"

[workers.own-model]
provider = "local_server"
input_usd_per_mtok = 1.5
"""


def write(text: str) -> Path:
    path = Path("ripieno.toml")
    path.write_text(text)
    return path


def test_without_a_file_the_embedded_pool_is_used() -> None:
    loaded = load_settings()
    assert "calc-quick" in loaded.settings.workers
    assert loaded.origins["workers.calc-quick.provider"] == "embedded pool"
    assert all(worker.privacy is Privacy.LOCAL for worker in build_pool(loaded.settings))


def test_flags_stand_above_variables_above_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write("[gateway]\nport = 1\nhost = '127.0.0.2'\n[route]\npreset = 'cheap'")
    monkeypatch.setenv("RIPIENO_GATEWAY__PORT", "2")
    assert load_settings().settings.gateway.port == 2
    loaded = load_settings(flags={"gateway": {"port": 3}})
    assert (loaded.settings.gateway.port, loaded.settings.gateway.host) == (3, "127.0.0.2")
    assert loaded.origins["gateway.port"] == "flag"
    assert loaded.origins["gateway.host"] == "file"
    assert loaded.origins["route.preset"] == "file"


def test_workers_get_list_prices_where_the_list_knows_them() -> None:
    write(POOL)
    pool = build_pool(load_settings().settings)
    assert pool.ids == ("small", "own-model")
    assert pool["small"].price.input_usd_per_mtok == pytest.approx(0.15)
    assert pool["small"].price.output_usd_per_mtok == pytest.approx(0.6)
    assert pool["own-model"].price.input_usd_per_mtok == 1.5
    assert pool["own-model"].binding.model == "own-model"


def test_an_unlisted_model_has_a_price_of_zero_marked_as_unknown() -> None:
    write(POOL.replace('model = "gpt-4o-mini"', 'model = "nobody-ever-heard-of-it"'))
    price = build_pool(load_settings().settings)["small"].price
    assert (price.input_usd_per_mtok, price.is_known) == (0.0, False)


def test_keys_come_from_the_environment_and_stay_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    write(POOL)
    monkeypatch.setenv("RIPIENO_PROVIDERS__LOCAL_SERVER__API_KEY", "sk-very-secret")
    provider = load_settings().settings.providers["local_server"]
    assert provider.api_key is not None
    assert provider.api_key.get_secret_value() == "sk-very-secret"
    assert "sk-very-secret" not in repr(load_settings())


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "[route]\npreferense = 1",
            "ripieno.toml, line 2: unknown key 'route.preferense'",
            "did you mean 'preference'?",
        ),
        ("colour = 1", "ripieno.toml, line 1: unknown key 'colour'", "config show"),
        ("[gateway]\nport = 'x'", "ripieno.toml, line 2: gateway.port", None),
        ("[gateway]\nport = 70000", "gateway.port", None),
        ("[gateway\n", "ripieno.toml: ", None),
        (POOL + "\n[workers.small]\nprovider = 'x'", "[workers.small]", "only once"),
        (POOL + "\n[workers.other]\nprovider = 'gone'", "worker 'other' names the provider 'gone'", "local_server"),
        (POOL + "\n[pool]\nmuted = ['nobody']", "pool.muted names 'nobody'", None),
        (POOL.replace("local_server", "local-server"), "must be named in a-z, 0-9 and _", "API_KEY"),
        (
            POOL.replace("kind =", "api_key = 'sk-1'\nkind ="),
            "a key does not belong in the file",
            "RIPIENO_PROVIDERS__",
        ),
        (POOL + "\n[workers.third]\nprovider = 'local_server'\nprivasy = 'local'", "workers.third.privasy", "privacy"),
    ],
)
def test_a_wrong_file_is_refused_by_key_place_and_mend(text: str, message: str, hint: str | None) -> None:
    write(text)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert message in caught.value.message
    assert "sk-1" not in caught.value.message
    if hint is not None:
        assert hint in str(caught.value.hint)


def test_a_wrong_variable_is_named_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPIENO_GATEWAY__PORT", "many")
    with pytest.raises(ConfigError, match=r"RIPIENO_ variable or flag: gateway\.port"):
        load_settings()


def test_a_missing_or_unreadable_file_is_refused_when_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no configuration file"):
        load_settings(Path("none.toml"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path)


def test_ids_that_are_not_canonical_are_refused() -> None:
    write(POOL.replace("[workers.small]", '[workers."Small One"]'))
    with pytest.raises(ConfigError, match="write 'small-one'"):
        build_pool(load_settings().settings)


def test_an_empty_pool_is_refused_with_the_mend() -> None:
    settings = load_settings().settings.model_copy(update={"workers": {}})
    with pytest.raises(ConfigError, match="the pool is empty") as caught:
        build_pool(settings)
    assert "ripieno pool add" in str(caught.value.hint)
