"""The privacy boundary: what it finds, what it takes for sensitive by mistake, and what it costs.

    python -m benchmarks.privacy [--data ../shared/data] [--prompts 5000] [--seed 0]

Three tables. Planted forms in every carrier, beside detect-secrets with libphonenumber and check digits on the first
20,000 characters of the messages, which is what Ripieno 0.11 had. Alarms on ordinary prompts of the routing-data and
task folders of `--data`, drawn by the seed. CPU time for each 10,000 characters, and how it grows with the text.
"""

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from benchmarks.planted import CARRIERS, FORMS, SECRETS

from ripieno.domain import Sensitivity, Task
from ripieno.privacy import Scanner, make_scanner
from ripieno.privacy.boundary import list_seen
from ripieno.privacy.unpack import read_text
from ripieno.wires import ChatDialect

if TYPE_CHECKING:
    from detect_secrets.plugins.base import BasePlugin

PROSE = "The committee met on Tuesday and agreed, after a long discussion, that the plan should go ahead in spring. "
CODE = (
    "def find_items(self, name: str) -> list[Item]:\n    return [each for each in self._items if each.name == name]\n"
)
TABLE = "| 2024-05-01 | 1,204.50 | 17 | 0.0031 | 998,201 | A-1042 | 3.14159 |\n"
ACCENTS = "Le comité s’est réuni mardi et a décidé — après une longue discussion — d’aller de l’avant. "
LETTERS = "委员会星期二开会，经过长时间讨论，决定在春天继续执行该计划。"
LATEX = r"Let \(x\in\mathbb{R}^n\) and \frac{\partial f}{\partial x_i} = \nabla_i f, where \theta_{0}=\text{const}. "
HOSTILE = "4111 1111 1111 1112 password=password= sk-sk-sk- git@github.com token: QUJDREVGR0hJSktMTU5P "
TEXTS = {
    "prose": PROSE,
    "code": CODE,
    "tables": TABLE,
    "accents": ACCENTS,
    "chinese": LETTERS,
    "latex": LATEX,
    "hostile": HOSTILE,
}
SIZES = (10_000, 100_000, 1_000_000)


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--prompts", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    scanner = make_scanner(region="US")
    show_detections(scanner)
    if given.data.is_dir():
        show_alarms(scanner, draw(given.data, count=given.prompts, seed=given.seed))
    else:
        print(f"\nalarms: not measured, there is no folder {str(given.data)!r} (--data names another)")
    show_costs(scanner)


def show_detections(scanner: Scanner) -> None:
    """Forms by carriers: how many are found, by the scanner and by the baseline."""
    print(f"planted: {len(FORMS)} forms ({len(SECRETS)} secrets) in {len(CARRIERS)} carriers each\n")
    print(f"| carrier | found | baseline | of {len(FORMS)} |\n| --- | ---: | ---: | --- |")
    totals, missed = Counter[str](), []
    for name, carry in CARRIERS.items():
        tasks = {form: make_task(carry(text)) for form, text in FORMS.items()}
        found = [form for form, task in tasks.items() if kind_of(form) in scanner.find(read_text(list_seen(task)))]
        before = [form for form, task in tasks.items() if kind_of(form) in find_before(task)]
        missed += [f"{form} ({name})" for form in FORMS if form not in found]
        totals += Counter(found=len(found), before=len(before))
        print(f"| {name} | {len(found)} | {len(before)} | |")
    of = len(FORMS) * len(CARRIERS)
    print(f"| all | {totals['found']} | {totals['before']} | {of} |\n\nmissed: {', '.join(missed) or 'none'}")


def show_alarms(scanner: Scanner, prompts: list[tuple[str, str]]) -> None:
    """The share of ordinary prompts that count as sensitive, by form."""
    forms, alarms = Counter[str](), Counter[str]()
    for source, text in prompts:
        if scanner.find(text):
            alarms[source] += 1
            forms.update({found.form for found in scanner.locate(text)} or {"encoded"})
    count = sum(alarms.values())
    print(f"\nalarms: {count} of {len(prompts)} ordinary prompts, {count / len(prompts):.3%}")
    for form, number in forms.most_common():
        print(f"  {form}: {number} ({number / len(prompts):.3%})")
    print(f"  by source: {dict(alarms)}")


def show_costs(scanner: Scanner) -> None:
    """CPU time for each 10,000 characters, and the growth from one size to the next."""
    print("\n| text | " + " | ".join(f"{size:,}" for size in SIZES) + " | growth |\n| --- |" + " ---: |" * 4)
    for name, unit in TEXTS.items():
        costs = [measure(scanner.find, (unit * (size // len(unit) + 1))[:size]) for size in SIZES]
        growth = costs[-1] / costs[0]
        print(f"| {name} | " + " | ".join(f"{cost:.3f} ms" for cost in costs) + f" | {growth:.2f} |")
    print("\nCPU milliseconds for each 10,000 characters, the best of 5; growth is last over first, 1 is linear")


def measure(find: Callable[[str], object], text: str) -> float:
    """Milliseconds of CPU for each 10,000 characters: the best of five."""
    rounds = max(1, 100_000 // len(text))
    costs = []
    for _ in range(6):
        began = time.process_time()
        for _ in range(rounds):
            find(text)
        costs.append((time.process_time() - began) / rounds * 1e3 / (len(text) / 1e4))
    return min(costs[1:])


def draw(folder: Path, *, count: int, seed: int) -> list[tuple[str, str]]:
    """Ordinary prompts, drawn from all sources together."""
    found = sorted(set(read_prompts(folder)))
    rng = np.random.default_rng(seed)
    return [found[index] for index in rng.choice(len(found), size=min(count, len(found)), replace=False)]


def read_prompts(folder: Path) -> Iterator[tuple[str, str]]:
    """All prompts of task files, of routing-data folders, and of agent sessions, with their source."""
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("tasks/*/*.jsonl")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line.strip():
                row = json.loads(line)
                yield path.parent.name, str(row.get("prompt") or "\n".join(row.get("turns") or []))
    for path in sorted(folder.glob("*/prompts.parquet")):
        for text in pq.read_table(path, columns=["prompt"])["prompt"].to_pylist():
            yield path.parent.name, text or ""
    for path in sorted(folder.glob("transcripts/*.jsonl")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            for message in json.loads(line)["messages"] if line.strip() else ():
                yield "transcripts", read_text(message.get("content"))


def make_task(body: dict[str, object]) -> Task:
    """The task of a chat-completions body, as the gateway makes it."""
    asked = ChatDialect().read(body)
    return Task(messages=asked.messages, tools=asked.tools, params=asked.params)


def kind_of(form: str) -> Sensitivity:
    """Whether a planted form is a secret or personal."""
    return Sensitivity.SECRET if form in SECRETS else Sensitivity.PERSONAL


_EMAIL = re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+\b")
_DIGITS = re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?![\w.])")
_SOCIAL = re.compile(r"(?<!\d)\d{3}-\d{2}-\d{4}(?!\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")


def find_before(task: Task) -> set[Sensitivity]:
    """The baseline: detect-secrets without entropy, line by line, and the personal data that it was held with."""
    from phonenumbers import PhoneNumberMatcher
    from stdnum import iban, luhn
    from stdnum.us import ssn

    text = "\n".join(message.text for message in task.messages)[:20_000]
    found = set()
    if any(secret for line in text.splitlines() for plugin in plugins() for secret in plugin.analyze_string(line)):
        found.add(Sensitivity.SECRET)
    cards = [re.sub(r"\D", "", match) for match in _DIGITS.findall(text)]
    if (
        _EMAIL.search(text)
        or any(luhn.is_valid(card) and len(set(card)) > 1 for card in cards)
        or any(map(ssn.is_valid, _SOCIAL.findall(text)))
        or any(map(iban.is_valid, _IBAN.findall(text)))
        or any(True for _ in PhoneNumberMatcher(text, "US"))
    ):
        found.add(Sensitivity.PERSONAL)
    return found


def plugins() -> "list[BasePlugin]":
    """The detectors of detect-secrets, made once."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    if not _PLUGINS:
        left_out = ("Base64 High Entropy String", "Hex High Entropy String", "Public IP (ipv4)")
        kinds = get_mapping_from_secret_type_to_class()
        _PLUGINS.extend(kind() for name, kind in kinds.items() if name not in left_out)
    return _PLUGINS


_PLUGINS: "list[BasePlugin]" = []

if __name__ == "__main__":
    main()
