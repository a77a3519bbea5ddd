"""Scale: limits that follow from the setting `scale`. Earlier versions had a setting for each."""

from collections.abc import Mapping

MIB = 1024 * 1024

SERVER: Mapping[str, Mapping[str, float]] = {
    "gateway": {"max_in_flight": 10_000, "body_bytes": 64 * MIB, "memory_bytes": 2048 * MIB, "drain_s": 120.0},
    "ledger": {"outbox_bytes": 4096 * MIB},
    "cache": {"answer_bytes": 1024 * MIB},
    "memory": {"read_s": 5.0},
}
"""Limits of `scale = "server"`: for a dedicated machine with at least 8 GiB. The defaults are those of `laptop`."""
FORMER = frozenset(f"{table}.{key}" for table, limits in SERVER.items() for key in limits)
"""Dotted keys that `scale` sets. A file may still contain one: its value applies, and a warning names its line."""
