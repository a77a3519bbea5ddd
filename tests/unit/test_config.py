"""Settings: order of sources, origins, and every invalid key with its place and fix."""

from pathlib import Path

import pytest

from ripieno.app import build_pool
from ripieno.config import load_settings
from ripieno.config.scale import FORMER
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


def test_flags_override_variables_which_override_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write("[gateway]\nport = 1\nhost = '127.0.0.2'\n[route]\npreset = 'cheap'")
    monkeypatch.setenv("RIPIENO_GATEWAY__PORT", "2")
    assert load_settings().settings.gateway.port == 2
    loaded = load_settings(flags={"gateway": {"port": 3}})
    assert (loaded.settings.gateway.port, loaded.settings.gateway.host) == (3, "127.0.0.2")
    assert loaded.origins["gateway.port"] == "flag"
    assert loaded.origins["gateway.host"] == "file"
    assert loaded.origins["route.preset"] == "file"


def test_workers_get_list_prices_if_the_list_has_them() -> None:
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
        ("\n[gatewey]\nport = 1", "ripieno.toml, line 2: unknown key 'gatewey'", "did you mean 'gateway'?"),
        ("[gatewey.limits]\nport = 1", "ripieno.toml, line 1: unknown key 'gatewey'", "did you mean 'gateway'?"),
        ("[[gatewey]]\nport = 1", "ripieno.toml, line 1: unknown key 'gatewey'", "did you mean 'gateway'?"),
        ("[gateway]\nport = 1\n[memory.deep]\nx = 1", "ripieno.toml, line 3: unknown key 'memory.deep'", None),
        ("[conductor]\nkinds = 'tiny'", "ripieno.toml, line 2: unknown key 'conductor.kinds'", "'kind'"),
        (
            '[gateway.aliases]\nfast = """\n[route]\n"""\n[route]\nport = 1',
            "ripieno.toml, line 6: unknown key 'route.port'",
            None,
        ),
        ("gateway = 3", "ripieno.toml, line 1: gateway must be a table", "write [gateway]"),
        ("providers = 'x'", "ripieno.toml, line 1: providers must be a table", None),
        ("workers = []", "ripieno.toml, line 1: workers must be a table", None),
        ("[workers]\nsmall = 1", "ripieno.toml, line 2: workers.small must be a table", None),
        ("[pool]\nmuted = 3", "ripieno.toml, line 2: pool.muted", None),
        ("[workers.small]\nmodel = 'x'", "ripieno.toml, line 1: workers.small.provider", None),
        ("home = 3", "ripieno.toml, line 1: home", None),
        ("[ledger]\nurl = 3", "ripieno.toml, line 2: ledger.url", None),
        ("[gateway]\nport = 'x'", "ripieno.toml, line 2: gateway.port", None),
        ("[gateway]\nport = 70000", "gateway.port", None),
        ("[gateway\n", "ripieno.toml: ", None),
        (POOL + "\n[workers.small]\nprovider = 'x'", "[workers.small]", "only once"),
        (POOL + "\n[workers.other]\nprovider = 'gone'", "worker 'other' names the provider 'gone'", "local_server"),
        (POOL + "\n[pool]\nmuted = ['nobody']", "pool.muted names 'nobody'", None),
        (POOL.replace("local_server", "local-server"), "may contain only a-z, 0-9 and _", "API_KEY"),
        (
            POOL.replace("kind =", "api_key = 'sk-1'\nkind ="),
            "a key does not belong in the file",
            "RIPIENO_PROVIDERS__",
        ),
        (POOL + "\n[workers.third]\nprovider = 'local_server'\nprivasy = 'local'", "workers.third.privasy", "privacy"),
    ],
)
def test_an_invalid_file_is_refused_with_key_place_and_fix(text: str, message: str, hint: str | None) -> None:
    write(text)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert message in caught.value.message
    assert "sk-1" not in caught.value.message
    if hint is not None:
        assert hint in str(caught.value.hint)


def test_an_unknown_provider_kind_is_refused_even_if_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    unused = "\n[providers.p]\nbase_url = 'http://127.0.0.1:9/v1'\nkind = 'opnai'\n"
    for text, line in ((POOL + unused, 17), (unused, 4)):
        write(text)
        with pytest.raises(ConfigError) as caught:
            load_settings()
        assert caught.value.message == f"ripieno.toml, line {line}: provider 'p': unknown kind 'opnai'"
        assert (caught.value.key, caught.value.path) == ("providers.p.kind", "ripieno.toml")
        hint = str(caught.value.hint)
        assert hint.startswith("did you mean 'openai'? installed kinds: ")
        assert {"callable", "llama", "openai", "replay"} <= set(hint.replace(";", ",").replace(": ", ", ").split(", "))
    write(POOL)
    monkeypatch.setenv("RIPIENO_PROVIDERS__LOCAL_SERVER__KIND", "telepathy")
    with pytest.raises(ConfigError, match="PROVIDERS__LOCAL_SERVER__KIND: provider 'local_server': unknown kind"):
        load_settings()


def test_an_error_names_the_invalid_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPIENO_GATEWAY__PORT", "many")
    with pytest.raises(ConfigError, match=r"the variable RIPIENO_GATEWAY__PORT: gateway\.port"):
        load_settings()
    monkeypatch.setenv("RIPIENO_GATEWAY__PORT", "4141")
    monkeypatch.setenv("RIPIENO_GATEWAY__PROT", "4141")
    with pytest.raises(ConfigError, match=r"the variable RIPIENO_GATEWAY__PROT: unknown key 'gateway\.prot'"):
        load_settings()
    with pytest.raises(ConfigError, match=r"the flag for gateway\.host: gateway\.host"):
        load_settings(flags={"gateway": {"host": 3}})


def test_an_error_names_a_variable_with_invalid_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPIENO_GATEWAY", "4141")
    with pytest.raises(ConfigError, match="the variable RIPIENO_GATEWAY: gateway must be a table"):
        load_settings()
    monkeypatch.setenv("RIPIENO_GATEWAY", "{port")
    with pytest.raises(ConfigError, match="RIPIENO_GATEWAY is not valid JSON") as caught:
        load_settings()
    assert "RIPIENO_GATEWAY__KEY=value" in str(caught.value.hint)


def test_a_key_of_an_unconfigured_provider_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPIENO_PROVIDERS__OPENAI__API_KEY", "sk-very-secret")
    monkeypatch.setenv("RIPIENO_WORKERS__GPT__NOTES", "dear")
    loaded = load_settings()
    assert "calc-quick" in loaded.settings.workers
    assert "openai" not in loaded.settings.providers
    assert set(loaded.ignored) == {"RIPIENO_PROVIDERS__OPENAI__API_KEY", "RIPIENO_WORKERS__GPT__NOTES"}
    assert "sk-very-secret" not in repr(loaded)
    write(POOL)
    assert set(load_settings().settings.providers) == {"local_server"}
    write("[providers.openai]\nkind = 'openai'\nbase_url = 'http://127.0.0.1:9/v1'")
    loaded = load_settings()
    assert loaded.settings.providers["openai"].api_key is not None
    assert loaded.ignored == ("RIPIENO_WORKERS__GPT__NOTES",)


def test_a_provider_can_be_defined_by_variables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPIENO_PROVIDERS__OPENAI", '{"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}')
    monkeypatch.setenv("RIPIENO_PROVIDERS__OPENAI__API_KEY", "sk-1")
    provider = load_settings().settings.providers["openai"]
    assert (provider.kind, provider.api_key is not None) == ("openai", True)


def test_the_home_lies_beside_the_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, elsewhere = tmp_path / "project", tmp_path / "project" / "deep" / "down"
    elsewhere.mkdir(parents=True)
    path = folder / "x.toml"
    path.write_text("")
    monkeypatch.chdir(elsewhere)
    settings = load_settings(Path("../../x.toml")).settings
    assert settings.home.resolve() == folder / ".ripieno"
    assert Path(settings.ledger.url.removeprefix("sqlite:///")).resolve() == folder / ".ripieno" / "ledger.db"
    path.write_text(
        "home = 'data'\n[ledger]\noutbox = 'out.jsonl'\n[memory]\nurl = 'sqlite:///m/memory.db'\n"
        "[route]\nrules = 'rules.toml'\n[conductor]\nhead = '/abs/head'"
    )
    settings = load_settings(Path("../../x.toml")).settings
    assert settings.home.resolve() == folder / "data"
    assert Path(settings.ledger.url.removeprefix("sqlite:///")).resolve() == folder / "data" / "ledger.db"
    assert str(settings.memory.url).startswith("sqlite:///")
    assert Path(str(settings.memory.url).removeprefix("sqlite:///")).resolve() == folder / "m" / "memory.db"
    assert settings.ledger.outbox is not None
    assert settings.ledger.outbox.resolve() == folder / "out.jsonl"
    assert settings.route.rules is not None
    assert settings.route.rules.resolve() == folder / "rules.toml"
    assert settings.conductor.head == Path("/abs/head")
    monkeypatch.setenv("RIPIENO_HOME", "here")
    settings = load_settings(Path("../../x.toml")).settings
    assert settings.home == Path("here"), "a variable speaks of the current folder"


@pytest.mark.parametrize("url", ["sqlite:////abs/x.db", "sqlite:///:memory:", "postgresql://u@h/d"])
def test_an_absolute_address_stays_as_it_is(tmp_path: Path, url: str) -> None:
    path = tmp_path / "deep" / "x.toml"
    path.parent.mkdir()
    path.write_text(f"[ledger]\nurl = '{url}'")
    assert load_settings(path).settings.ledger.url == url


def test_without_a_named_file_the_home_is_in_the_current_folder() -> None:
    settings = load_settings().settings
    assert (settings.home, settings.ledger.url) == (Path(".ripieno"), "sqlite:///.ripieno/ledger.db")
    Path("ripieno.toml").mkdir()
    with pytest.raises(ConfigError, match=r"ripieno\.toml cannot be read"):
        load_settings()


def test_a_folder_named_env_changes_nothing() -> None:
    Path(".env").mkdir()
    assert load_settings().settings.gateway.port == 4141


def test_a_missing_or_unreadable_file_is_refused_when_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the configuration file .* does not exist"):
        load_settings(Path("none.toml"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path)


def test_ids_that_are_not_canonical_are_refused() -> None:
    write(POOL.replace("[workers.small]", '[workers."Small One"]'))
    with pytest.raises(ConfigError, match="write 'small-one'"):
        build_pool(load_settings().settings)


def test_an_empty_pool_is_refused_with_the_fix() -> None:
    settings = load_settings().settings.model_copy(update={"workers": {}})
    with pytest.raises(ConfigError, match="the pool is empty") as caught:
        build_pool(settings)
    assert "ripieno pool add" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[memory]\ncompact_worker = "nope"', "line 2: memory.compact_worker names 'nope'"),
        ('[profile]\njudge = "nope"', "line 2: profile.judge names 'nope'"),
        ('[conductor]\nworker = "nope"', "line 2: conductor.worker names 'nope'"),
        ('[route]\npreset = "balancd"', "line 2: route.preset names 'balancd'"),
        ('[gateway.aliases]\nzz = "nope"', "line 2: gateway.aliases.zz names 'nope'"),
        ('[gateway.aliases]\n"auto:best" = "auto"', "line 2: 'auto:best' is the name of the router"),
        ('[gateway.aliases]\ncalc-quick = "auto"', "line 2: 'calc-quick' is the name of a worker"),
        (
            '[providers.p]\nkind = "openai"\nbase_url = "http://127.0.0.1:9"\n[workers.auto]\nprovider = "p"',
            "line 4: 'auto' is",
        ),
    ],
)
def test_a_name_that_is_unknown_or_taken_is_reported_with_its_line(text: str, place: str, own_folder: Path) -> None:
    (own_folder / "ripieno.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert place in caught.value.message


def test_a_variable_of_an_unknown_table_is_refused_with_a_suggestion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RIPIENO_ROUT__PRESET", "fast")
    with pytest.raises(ConfigError, match="RIPIENO_ROUT__PRESET: there is no table 'rout'") as caught:
        load_settings()
    assert "RIPIENO_ROUTE__" in str(caught.value.hint)


def test_scale_sets_the_limits_of_a_machine() -> None:
    write('scale = "server"\n')
    loaded = load_settings()
    assert (loaded.settings.gateway.max_in_flight, loaded.settings.gateway.drain_s) == (10_000, 120.0)
    assert loaded.settings.ledger.outbox_bytes == 4 * 1024**3
    assert loaded.origins["memory.read_s"] == "scale"
    write('scale = "laptop"\n')
    assert load_settings().settings.gateway == type(loaded.settings)().gateway
    write('[gateway]\nport = 1\n\nscale = "server"\n')
    with pytest.raises(ConfigError, match=r"line 4: unknown key 'gateway.scale'"):
        load_settings()
    write('scale = "planet"\n')
    with pytest.raises(ConfigError, match=r"line 1: scale: .*'laptop' or 'server'"):
        load_settings()


def test_a_former_limit_still_applies_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write('scale = "server"\n\n[gateway]\nport = 0\nbody_bytes = 5000\n')
    monkeypatch.setenv("RIPIENO_MEMORY__READ_S", "0.5")
    loaded = load_settings()
    assert (loaded.settings.gateway.body_bytes, loaded.settings.memory.read_s) == (5000, 0.5)
    assert loaded.settings.gateway.drain_s == 120.0
    assert loaded.origins["gateway.body_bytes"] == "file"
    told = [record.getMessage() for record in caplog.records]
    assert ["ripieno.toml, line 5: gateway.body_bytes" in line for line in told] == [True, False]
    assert "RIPIENO_MEMORY__READ_S: memory.read_s" in told[1]


def test_each_limit_of_a_scale_is_a_setting_of_its_table() -> None:
    settings = load_settings().settings
    for key in FORMER:
        table, name = key.split(".")
        assert name in type(getattr(settings, table)).model_fields
