"""The workbench: its answers, its workers, its sandbox, and its ladder."""

import asyncio
from collections import Counter
from contextlib import closing

import numpy as np
import pytest

from ripieno.domain import Answer, Op
from ripieno.verify import Grading
from ripieno.verify.programs import Programs
from ripieno.workbench.audit import audit
from ripieno.workbench.families import CHAINS, FAMILIES
from ripieno.workbench.search import list_singles, propose, search, try_plan
from ripieno.workbench.skills import SKILLS, UNKNOWN, find_program, take_majority
from ripieno.workbench.workers import WORDS, garble, make_workers
from ripieno.workbench.world import BenchOutcome, BenchPool, BenchStep, World


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("split", ["train", "test"])
def test_exact_skills_in_the_right_order_find_the_answer(family, split) -> None:  # type: ignore[no-untyped-def]  # parametrized
    tasks = family.generate(split=split, count=40, rng=np.random.default_rng(3))
    assert len(tasks) == 40
    with closing(Programs()) as programs:
        for task in tasks:
            text = task.task.text
            for skill in CHAINS[family.name]:
                if skill == "execute":
                    program = find_program(text)
                    assert program is not None
                    text = programs.run(program) or UNKNOWN
                else:
                    text = SKILLS[skill](text)
            verdict = asyncio.run(Grading({}).grade(task.grader, task.task, Answer(text=text), author="chain"))
            assert verdict.quality == 1.0, (task.task.text, text, task.grader)


def test_no_phrasing_is_in_both_splits() -> None:
    for family in FAMILIES:
        assert not {t.text for t in family.train} & {t.text for t in family.test}
    for known, unseen in WORDS.values():
        assert not set(known) & set(unseen)
    ids = Counter(worker.id for worker in make_workers())
    assert max(ids.values()) == 1
    assert {worker.split for worker in make_workers()} == {"train", "test"}


def test_skills_report_text_that_they_cannot_read() -> None:
    for name, skill in SKILLS.items():
        if name not in ("edit", "vote"):
            assert skill("Sing me a song about rain, please") == UNKNOWN, name
    assert SKILLS["edit"]("no quotes here") == UNKNOWN
    assert find_program("no program") is None
    assert find_program("print(") is None
    assert take_majority(f"2\n3\n{UNKNOWN}\n3") == "3"
    assert take_majority(UNKNOWN) == UNKNOWN
    assert SKILLS["look_up"]("Given {broken, what is the price of x?") == UNKNOWN
    assert SKILLS["look_up"]("Given {1: 2}, what?") == UNKNOWN
    assert SKILLS["convert"]("convert 3 km to grams") == UNKNOWN
    assert SKILLS["dates"]("9999-12-31 plus 9 days") == UNKNOWN
    assert SKILLS["order"]("Ann is taller than Ben. Cleo is taller than Dan. Who is the tallest?") == UNKNOWN
    assert SKILLS["read"]("Tom shares: 12 at 3 each shared among 4") == "(12 * 3) / 4"


def test_a_clone_fails_on_fixed_texts_at_its_rate() -> None:
    clone = next(worker for worker in make_workers() if worker.id == "calculate-train-2")
    texts = [f"What is {a} + {b}?" for a in range(40) for b in range(25)]
    first = [clone.act(text, lambda code: None) for text in texts]
    clone.known.clear()
    assert [clone.act(text, lambda code: None) for text in texts] == first
    wrong = np.mean([said != SKILLS["calculate"](text) for said, text in zip(first, texts, strict=True)])
    assert abs(wrong - clone.slip) < 4 * np.sqrt(clone.slip * (1 - clone.slip) / len(texts))
    assert garble("", 3) == UNKNOWN
    assert garble("abc", 4) == "ac"


@pytest.fixture(scope="module")
def world():  # type: ignore[no-untyped-def]  # a fixture
    with World(tasks=40, seed=5) as made:
        yield made


def make_pool(world: World, *names: str) -> BenchPool:
    workers = tuple(next(worker for worker in world.workers if worker.id == name) for name in names)
    zeros = np.zeros((len(workers), len(world.families)))
    return BenchPool(workers=workers, words=names, family_probes=zeros, skill_probes=np.zeros(len(workers)))


def test_a_chain_is_found_that_no_single_worker_replaces(world: World) -> None:
    pool = make_pool(world, "look_up-train-0", "calculate-train-0", "read-train-0", "vote-train-0")
    tasks = world.tasks["train", "table_story"]
    best = search(world, pool, tasks, first=8)[0]
    assert [worker for _, worker in best.plan] == [0, 2, 1]
    assert best.right > 0.7, "three steps that hardly slip"
    assert max(try_plan(world, pool, plan, tasks).right for plan in list_singles(pool)) == 0.0


def test_single_steps_are_checked_and_voted_on_where_several_can(world: World) -> None:
    names = ("calculate-train-0", "calculate-train-1", "calculate-train-2", "vote-train-0")
    plans = propose(world, make_pool(world, *names), world.tasks["train", "arithmetic"][:10])
    kinds = {tuple(len(plan) for plan in plans if len(plan) == size) for size in (1, 3, 4)}
    assert all(kinds)


def test_an_accepting_check_ends_a_plan_and_an_outcome_has_its_price(world: World) -> None:
    pool = make_pool(world, "calculate-train-0", "calculate-train-1", "general-train-strong")
    solve, verify, again = BenchStep(0, Op.SOLVE, 0), BenchStep(1, Op.VERIFY, 1), BenchStep(2, Op.SOLVE, 0)
    done = world.carry_out("What is 2 + 3?", [solve, verify, again], pool)
    assert done.results == ["5", "5"]
    assert done.is_accepted
    assert done.cost == pytest.approx(pool.workers[0].cost + pool.workers[1].cost)
    right, wrong = BenchOutcome(is_right=True, cost=1.0, steps=2), BenchOutcome(is_right=False, cost=1.0, steps=2)
    assert right.reward == pytest.approx(0.97 - 0.003)
    assert wrong.reward == pytest.approx(-0.003)
    assert BenchOutcome(is_right=True, cost=1000.0, steps=1).reward == pytest.approx(0.5)


def test_the_ladder_rises_and_recommends_training(world: World) -> None:
    rng = np.random.default_rng(1)
    ladder = audit(world, [world.draw_pool("train", rng) for _ in range(4)], split="train", tasks=16)
    rungs = [rung[0] for rung in (ladder.random, ladder.single, ladder.one_step, ladder.search)]
    assert rungs == sorted(rungs)
    assert ladder.is_worth_training == (ladder.headroom >= 0.08)


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import os\nwhile True: os.fork()",
        "print(open('/etc/passwd').read())",
        "import socket\nprint(socket.socket())",
        "open('/escaped', 'w').write('x')",
        "print('x' * 10_000_000)",
        "x = 'a' * 10**10\nprint(1)",
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
        "import os, signal\nos.killpg(0, signal.SIGKILL)",
        "import subprocess\nprint(subprocess.run(['id']))",
        "import signal\nsignal.pause()",
        "f = open('big', 'wb')\nwhile True: f.write(b'x' * 1_000_000)",
        "1 / 0",
        "print(",
    ],
)
def test_a_bad_program_returns_nothing_and_the_next_one_runs(code: str) -> None:
    with closing(Programs(timeout_s=1.0)) as programs:
        assert programs.run(code) is None
        assert programs.run("print(6 * 7)") == "42"
