"""Plugins: listed and loaded, with isolated faults."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from ripieno.cli.errors import report
from ripieno.errors import ConfigError, MissingExtra
from ripieno.plugins import build_plugin, find_plugins, list_plugins, load_plugin, needs_extra, require_extra


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, *, module: str, points: str) -> None:
    """Put a small distribution on the path, like an installed plugin."""
    (folder / "theirs.py").write_text(module)
    info = folder / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "theirs", raising=False)


def test_built_ins_are_registered_like_plugins() -> None:
    assert set(find_plugins("ripieno.providers")) >= {"openai", "llama", "callable", "replay"}
    assert set(find_plugins("ripieno.predictors")) >= {"stack", "lowrank", "kinds", "heads"}
    assert all(listed.fault is None for listed in list_plugins())


def test_a_broken_plugin_is_named_and_stops_only_its_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, module="1/0", points="[ripieno.policies]\ntheirs = theirs:policy\n")
    faults = {listed.name: listed.fault for listed in list_plugins() if listed.group == "ripieno.policies"}
    assert "ZeroDivisionError" in str(faults["theirs"])
    assert faults["utility"] is None
    with pytest.raises(ConfigError, match="plugin 'theirs'"):
        load_plugin("ripieno.policies", "theirs")


def test_a_plugin_of_another_package_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        tmp_path,
        monkeypatch,
        module=(
            "from ripieno.plugins import NoOptions, Plugin\n"
            "policy = Plugin(NoOptions, lambda options: 'made')\n"
            "odd = 3\n"
        ),
        points="[ripieno.policies]\nmine = theirs:policy\nodd = theirs:odd\n",
    )
    assert build_plugin("ripieno.policies", "mine", {}, key="route") == "made"
    with pytest.raises(ConfigError, match=r"route\.speed"):
        build_plugin("ripieno.policies", "mine", {"speed": 1}, key="route")
    with pytest.raises(ConfigError, match="is not a ripieno"):
        build_plugin("ripieno.policies", "odd", {}, key="route")


def test_the_error_of_a_missing_plugin_lists_the_installed_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        load_plugin("ripieno.encoders", "nope")
    assert "static" in str(caught.value.hint)


def test_the_error_of_a_missing_library_names_its_extra() -> None:
    with pytest.raises(MissingExtra) as caught, needs_extra("train", "training a router", key="kind"):
        import_module("no_such_library.part")
    assert caught.value.message == "training a router needs the package 'no_such_library', which is not installed"
    assert (caught.value.hint, caught.value.extra) == ("pip install 'ripieno[train]'", "train")
    assert (caught.value.library, caught.value.key) == ("no_such_library", "kind")
    assert report(caught.value) == 3
    with needs_extra("train", "training a router"):
        import_module("json")


def test_a_missing_extra_is_reported_before_any_work() -> None:
    require_extra("train", "training a router", ("json", "re"))
    with pytest.raises(MissingExtra, match="'nothing_here'"):
        require_extra("train", "training a router", ("json", "nothing_here"))
