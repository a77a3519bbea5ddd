"""Profiling: every sample once, whatever happens in between."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.conftest import HANG_S
from tests.integration.conftest import Serve, open_app, write_pool

from ripieno.domain import Pool, Task
from ripieno.domain.grader import Exact, GradedTask
from ripieno.errors import BudgetExhausted
from ripieno.ledger import Ledger
from ripieno.measure import Campaign
from ripieno.measure.profile import plan_samples
from ripieno.testing import Reply

RIPIENO = [sys.executable, "-m", "ripieno.cli"]


def make_tasks(count: int) -> tuple[GradedTask, ...]:
    return tuple(
        GradedTask(id=f"t{i}", task=Task.from_text(f"say yes {i}"), grader=Exact(answers=("yes",)), family="f")
        for i in range(count)
    )


async def test_every_sample_is_recorded_with_outcome_cost_and_place(serve: Serve) -> None:
    write_pool(serve([Reply(text="yes")]), serve([Reply(text="no")]))
    async with open_app() as app:
        campaign = Campaign(name="c", tasks=make_tasks(4), workers=("a", "b"), repeats=2)
        seen: list[int] = []
        done = await app.runtime.make_profiler().run(
            campaign, app.runtime.pool, on_progress=lambda p: seen.append(p.done)
        )
        assert (done.total, done.done, done.resumed, done.accepted) == (16, 16, 0, 8.0)
        assert done.spent_usd == pytest.approx(8 * 0.001 + 8 * 0.002)
        assert seen == list(range(1, 17))
        rows = list(app.ledger.outcomes.measured(dataset="c"))
        assert Counter((r.outcome.worker, r.outcome.quality) for r in rows) == {("a", 1.0): 8, ("b", 0.0): 8}
        assert {(r.placement.item, r.placement.repeat) for r in rows if r.placement} == {
            (f"t{i}", n) for i in range(4) for n in range(2)
        }
        again = await app.runtime.make_profiler().run(campaign, app.runtime.pool)
        assert (again.resumed, again.done) == (16, 16)
        assert again.spent_usd == pytest.approx(done.spent_usd)
        assert app.ledger.verify().entries == 32


async def test_failures_are_recorded_and_the_campaign_continues(serve: Serve) -> None:
    write_pool(serve([Reply(status=400)]))
    async with open_app() as app:
        done = await app.runtime.make_profiler().run(
            Campaign(name="c", tasks=make_tasks(3), workers=("a",)), app.runtime.pool
        )
        assert done.failures == {"rejected": 3}
        assert [row.failure for row in app.ledger.outcomes.measured(dataset="c")] == ["rejected"] * 3


async def test_the_ceiling_stops_the_campaign_and_keeps_its_results(serve: Serve) -> None:
    write_pool(serve([Reply(text="yes")]))
    async with open_app() as app:
        campaign = Campaign(name="c", tasks=make_tasks(50), workers=("a",), most_cost_usd=0.01)
        with pytest.raises(BudgetExhausted) as caught:
            await app.runtime.make_profiler().run(campaign, app.runtime.pool)
        assert caught.value.limit == 0.01
        recorded = len(app.ledger.campaigns.run_ids("c"))
        assert 10 <= recorded <= 10 + 8, "what was under way when the ceiling was met is recorded too"
        with pytest.raises(BudgetExhausted):
            await app.runtime.make_profiler().run(campaign, app.runtime.pool)
        assert len(app.ledger.campaigns.run_ids("c")) == recorded


def test_samples_are_planned_task_by_task(make_pool: object) -> None:
    pool: Pool = make_pool("a", "b")  # type: ignore[operator]  # a fixture
    campaign = Campaign(name="c", tasks=make_tasks(2), workers=("a", "b"), skip=lambda task, worker: worker == "b")
    assert [(s.task.id, s.worker.id) for s in plan_samples(campaign, pool)] == [("t0", "a"), ("t1", "a")]
    runs = [s.run for s in plan_samples(Campaign(name="c", tasks=make_tasks(9), workers=("a", "b"), repeats=3), pool)]
    assert len(set(runs)) == 54


def count_rows(path: Path) -> int:
    with Ledger(f"sqlite:///{path}") as ledger:
        return len(ledger.campaigns.run_ids("tasks"))


def test_kill_nine_in_the_middle_repeats_and_loses_nothing(tmp_path: Path) -> None:
    """Kill a real process twice. The third run ends with every sample once."""
    settings = tmp_path / "ripieno.toml"
    settings.write_text("[ledger]\nurl = 'sqlite:///ledger.db'\n")
    lines = [
        {"id": f"t{i}", "prompt": f"What is {i} + {i}?", "grader": {"kind": "numeric", "answer": 2 * i}}
        for i in range(400)
    ]
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    command = [*RIPIENO, "profile", "tasks.jsonl", "--repeats", "2", "--json"]
    command += ["--worker", "calc-quick", "--worker", "dates-quick"]
    counts = []
    for _ in range(2):
        before = count_rows(tmp_path / "ledger.db")
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
        deadline = time.monotonic() + HANG_S
        while count_rows(tmp_path / "ledger.db") < before + 150:
            assert time.monotonic() < deadline
            assert child.poll() is None, "it ended before it was killed"
        child.send_signal(signal.SIGKILL)
        child.wait()
        counts.append(count_rows(tmp_path / "ledger.db"))
    assert 150 <= counts[0] < counts[1] < 1600
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    told = json.loads(found.stdout)
    assert told["samples"] == 1600
    assert told["resumed"] == counts[1]
    assert told["measured"] == 1600 - counts[1]
    with Ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        rows = [
            (m.outcome.worker, m.placement.item, m.placement.repeat) for m in ledger.outcomes.measured() if m.placement
        ]
        assert len(rows) == len(set(rows)) == 1600
        assert ledger.verify().entries == 3200


def test_a_full_disk_stops_profiling_with_its_error_and_resumes(tmp_path: Path) -> None:
    (tmp_path / "ripieno.toml").write_text("[ledger]\nurl = 'sqlite:///ledger.db'\n")
    lines = [{"id": f"t{i}", "prompt": f"{i} + 1", "grader": {"kind": "numeric", "answer": i + 1}} for i in range(300)]
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from ripieno.cli import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY));"
        "sys.argv = ['ripieno', 'profile', 'tasks.jsonl', '--worker', 'calc-quick']; main()"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert found.returncode == 1
    assert "cannot grow" in found.stderr
    assert "free space on its disk" in found.stderr
    assert "Traceback" not in found.stderr
    before = count_rows(tmp_path / "ledger.db")
    assert 10 < before < 300
    subprocess.run(
        [*RIPIENO, "profile", "tasks.jsonl", "--worker", "calc-quick"], check=True, cwd=tmp_path, capture_output=True
    )
    assert count_rows(tmp_path / "ledger.db") == 300


def test_ctrl_c_stops_a_campaign_though_a_worker_never_returns(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(
        "import threading\nfrom pathlib import Path\n"
        "def answer(text):\n    Path('called').touch()\n    threading.Event().wait()\n"
    )
    (tmp_path / "ripieno.toml").write_text(
        "[ledger]\nurl = 'sqlite:///ledger.db'\n[providers.own]\nkind = 'callable'\ntimeout_s = 3600\n"
        "[workers.good]\nprovider = 'own'\nmodel = 'ripieno.embedded.workers.calc:quick'\n"
        "[workers.stuck]\nprovider = 'own'\nmodel = 'stuck:answer'\n"
    )
    lines = [{"id": f"t{i}", "prompt": f"{i} + 1", "grader": {"kind": "numeric", "answer": i + 1}} for i in range(30)]
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    child = subprocess.Popen(
        [*RIPIENO, "profile", "tasks.jsonl"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + HANG_S
    while not (tmp_path / "called").exists() or count_rows(tmp_path / "ledger.db") < 30:
        assert time.monotonic() < deadline
        assert child.poll() is None, "it ended by itself"
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=HANG_S)
    assert child.returncode == 130
    assert said.strip() == "stopped; what was recorded stays"
    assert count_rows(tmp_path / "ledger.db") == 30
