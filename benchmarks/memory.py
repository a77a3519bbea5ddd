"""Recall of evidence on LoCoMo's development part, with and without extracted facts; abstention; latency.

    python benchmarks/memory.py --data ../shared/data/locomo [--facts] [--run OUT.jsonl]
    python benchmarks/memory.py --size 100000

LoCoMo (Maharana et al., ACL 2024) is licensed for non-commercial use: it is measured with, and neither trained on nor
kept. With --run, rows are written as the scorer of retrieval runs reads them.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ripieno.domain import SystemClock
from ripieno.domain.memory import ItemKind, NewItem, Scope
from ripieno.encoders.static import StaticEncoder
from ripieno.memory import Memory, Store
from ripieno.memory.opening import open_memory

VOCABULARY = 30_000


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def fill(memory: Memory, data: Path, *, has_facts: bool) -> None:
    """Turns as episodes, one project a conversation; facts as items made from them."""
    turns = read(data / "turns.jsonl")
    made = [
        NewItem(
            text=f"{turn['text']} {turn['caption']}".strip() or "(an image)",
            author=str(turn["speaker"]),
            thread=f"session {turn['session']}",
            scope=Scope(project=str(turn["conv_id"])),
            source="locomo",
            ref=str(turn["turn_id"]),
            happened_at=datetime.fromisoformat(str(turn["session_time"])).replace(tzinfo=UTC).timestamp(),
        )
        for turn in turns
    ]
    receipts = await memory.remember(made)
    ids = {item.ref: receipt.id for item, receipt in zip(made, receipts, strict=True)}
    if not has_facts:
        return
    facts = []
    for fact in read(data / "facts.jsonl"):
        origins = [ids[turn] for turn in fact["turn_ids"] if turn in ids]  # type: ignore[attr-defined]  # a list
        if origins:
            facts.append(
                NewItem(
                    text=str(fact["fact"]),
                    kind=ItemKind.FACT,
                    author=str(fact["about"]),
                    scope=Scope(project=str(fact["conv_id"])),
                    source="facts",
                    derived_from=tuple(dict.fromkeys(origins)),
                )
            )
    await memory.remember(facts)


async def ask(memory: Memory, data: Path) -> list[dict[str, object]]:
    """One row a question, as the scorer reads them."""
    rows: list[dict[str, object]] = []
    for question in read(data / "questions.jsonl"):
        began = time.perf_counter()
        found = await memory.recall(str(question["question"]), scope=Scope(project=str(question["conv_id"])), most=50)
        rows.append(
            {
                "question_id": question["question_id"],
                "ranked": [each.item.ref for each in found.items],
                "scores": [found.support, *([0.0] * (len(found.items) - 1))] if found.items else [],
                "latency_ms": 1000.0 * (time.perf_counter() - began),
                "status": found.status.value,
            }
        )
    return rows


def tell(rows: list[dict[str, object]], data: Path) -> None:
    """Recall of audited evidence, and how well support tells answerable questions from others."""
    by = {row["question_id"]: row for row in rows}
    recalls: dict[int, list[float]] = defaultdict(list)
    support: dict[bool, list[float]] = {True: [], False: []}
    for question in read(data / "questions.jsonl"):
        row = by[question["question_id"]]
        scores = list(row["scores"])  # type: ignore[call-overload]  # a list
        support[bool(question["answerable"])].append(float(scores[0]) if scores else 0.0)
        audit: dict[str, object] = question["audit"] or {}  # type: ignore[assignment]  # a mapping
        gold = set(audit.get("evidence") or question["evidence"])  # type: ignore[call-overload]  # a list
        if question["answerable"] and gold:
            for most in (5, 10, 20):
                recalls[most].append(len(gold & set(row["ranked"][:most])) / len(gold))  # type: ignore[index]
    pairs = np.array(support[True])[:, None] - np.array(support[False])[None, :]
    auroc = float((pairs > 0).mean() + 0.5 * (pairs == 0).mean())
    told = ", ".join(f"R@{most} {np.mean(values):.3f}" for most, values in recalls.items())
    latency = np.array([row["latency_ms"] for row in rows], dtype=float)
    print(
        f"{len(rows)} questions: {told}, abstention AUROC {auroc:.3f}, read p50 {np.median(latency):.1f} ms, "
        f"p95 {np.quantile(latency, 0.95):.1f} ms"
    )


async def measure_size(memory: Memory, size: int) -> None:
    """Latency of reads and of durable writes in a memory of many items, with words drawn by Zipf's law."""
    rng = np.random.default_rng(0)
    share = 1.0 / np.arange(1, VOCABULARY + 1) ** 1.05
    share /= share.sum()
    words = [f"w{nth:x}{'aeiou'[nth % 5]}" for nth in range(VOCABULARY)]

    def say(count: int) -> str:
        return " ".join(words[nth] for nth in rng.choice(VOCABULARY, size=count, p=share))

    for start in range(0, size, 10_000):
        drawn = rng.choice(VOCABULARY, size=(min(10_000, size - start), 20), p=share)
        await memory.remember(
            [
                NewItem(text=" ".join(words[nth] for nth in row), thread=f"t{(start + place) // 40}")
                for place, row in enumerate(drawn)
            ]
        )
    reads, writes = [], []
    for _ in range(200):
        began = time.perf_counter()
        await memory.recall(say(8))
        reads.append(1000.0 * (time.perf_counter() - began))
        began = time.perf_counter()
        await memory.remember([NewItem(text=say(20), thread="t1")])
        writes.append(1000.0 * (time.perf_counter() - began))
    print(
        f"{size} items: read p50 {np.median(reads):.1f} ms, p95 {np.quantile(reads, 0.95):.1f} ms; "
        f"write p50 {np.median(writes):.1f} ms, p95 {np.quantile(writes, 0.95):.1f} ms"
    )


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--facts", action="store_true")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--size", type=int)
    parser.add_argument("--url", help="of an empty database; a file that is thrown away if not given")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clock = SystemClock()
        url = asked.url or f"sqlite:///{folder}/memory.db"
        memory = Memory(Store(open_memory(url), clock), StaticEncoder(), clock, read_s=60.0)
        if asked.size is not None:
            await measure_size(memory, asked.size)
            return
        if asked.data is None or not (asked.data / "turns.jsonl").exists():
            sys.exit(f"no LoCoMo in {asked.data}: nothing to measure")
        await fill(memory, asked.data, has_facts=asked.facts)
        rows = await ask(memory, asked.data)
        tell(rows, asked.data)
        if asked.run is not None:
            asked.run.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
