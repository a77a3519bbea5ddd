"""The public interface has the types that its users rely on; mypy checks this file with the rest."""

from typing import assert_type

import ripieno
from ripieno import Decision, Installation, NewItem, Objective, Pool, Run, Scope, Task


async def use(app: Installation) -> None:
    task = Task.from_text("hello", objective=Objective(preference=0.5))
    assert_type(task.digest, str)
    assert_type(await app.runtime.orchestrator.decide(task), Decision)
    decision, run = await app.runtime.orchestrator.run(task)
    assert_type(decision, Decision)
    assert_type(run, Run)
    assert_type(run.cost_usd, float | None)
    assert_type(app.runtime.pool, Pool)
    (receipt,) = await app.memory.remember([NewItem(text="hello", scope=Scope(project="web"))])
    assert_type(receipt.id, str)


def test_public_names_are_importable() -> None:
    assert ripieno.Task.from_text("hello").text == "hello"
    assert ripieno.Scope(project="web").project == "web"
    assert callable(use)
