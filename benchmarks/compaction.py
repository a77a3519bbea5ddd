"""What a compaction without any model keeps of seeded work sessions, once and in three rounds.

    python benchmarks/compaction.py --data ../shared/data/compaction [--rounds 3] [--run OUT.jsonl]

Only `turns` are read; `items` is the key by which it is marked: an item is kept where all its strings are in the text.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

from ripieno.domain import Message
from ripieno.memory.compact import compact


async def shorten(turns: list[Message], rounds: int) -> tuple[str, str]:
    """The text after some rounds, each of the last result and the turns that came since; and its status."""
    context: list[Message] = []
    place, text, status = 0, "", "ok"
    for nth in range(1, rounds + 1):
        end = len(turns) * nth // rounds
        done = await compact([*context, *turns[place:end]])
        if done.status != "ok":
            return "", done.status.value
        place, text, status = end, done.text, done.status.value
        context = [Message(role="assistant", content=text)]
    return text, status


def fold(text: str) -> str:
    return " ".join(text.lower().split())


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--run", type=Path)
    asked = parser.parse_args()
    path = asked.data / "sessions.jsonl"
    if not path.exists():
        sys.exit(f"no sessions in {asked.data}: nothing to measure")
    sessions = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kept: Counter[str] = Counter()
    asked_for: Counter[str] = Counter()
    leaked, shares, rows = 0, [], []
    for session in sessions:
        turns = [Message(role=turn["role"], content=turn["content"]) for turn in session["turns"]]
        text, status = await shorten(turns, asked.rounds)
        folded = fold(text)
        shares.append(len(text.split()) / sum(len(turn.text.split()) for turn in turns))
        rows.append({"session_id": session["session_id"], "text": text, "status": status})
        for item in session["items"]:
            has_all = all(fold(mark) in folded for mark in item["must"])
            if item["kind"] == "secret":
                leaked += has_all
            elif item["kind"] != "noise" and item.get("open") is not False:
                asked_for[item["kind"]] += 1
                kept[item["kind"]] += has_all
    told = ", ".join(f"{kind} {kept[kind] / asked_for[kind]:.3f}" for kind in asked_for)
    print(
        f"{len(sessions)} sessions, {asked.rounds} rounds: kept {told}; {sum(shares) / len(shares):.3f} of the words; "
        f"{leaked} secrets leaked"
    )
    if asked.run is not None:
        asked.run.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
