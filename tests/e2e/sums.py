"""A pool of two callables, one of which knows apples only, and graded sums: what commands measure and learn from."""

import json
from pathlib import Path

POOL = """
[ledger]
url = "sqlite:///ledger.db"
[route]
exploration = 0.0
[providers.tools]
kind = "callable"
[workers.good]
provider = "tools"
model = "answers:good"
privacy = "local"
[workers.bad]
provider = "tools"
model = "answers:bad"
privacy = "local"
"""
ANSWERS = """
def good(text):
    return str(eval_sum(text))

def bad(text):
    return str(eval_sum(text)) if "apples" in text else "no idea"

def eval_sum(text):
    numbers = [int(word) for word in text.replace("?", " ").split() if word.isdigit()]
    return sum(numbers)
"""


def write_sums(count: int) -> None:
    """Write the pool, its callables and `count` graded tasks into the current folder; every fifth task is held out."""
    Path("ripieno.toml").write_text(POOL)
    Path("answers.py").write_text(ANSWERS)
    lines = []
    for number in range(count):
        thing = "apples" if number % 2 else "pears"
        lines.append({
            "id": f"t{number}", "prompt": f"How many {thing} are {number} and {number + 3} ?", "family": thing,
            "split": "test" if number % 5 == 0 else "train",
            "grader": {"kind": "numeric", "answer": 2 * number + 3},
        })  # fmt: skip
    Path("tasks.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
