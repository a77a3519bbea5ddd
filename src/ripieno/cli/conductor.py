"""`ripieno conductor`: the trained writer of workflows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.ask import TaskOptions, describe, task_options
from ripieno.cli.options import prints_json
from ripieno.cli.output import count_bar, print_found, print_json, say
from ripieno.cli.running import require_workers, run_app
from ripieno.domain import Mode, parse_worker_id, sum_costs
from ripieno.domain.report import Report, number, text
from ripieno.errors import GateRefused, NotFound

if TYPE_CHECKING:
    from rich.progress import TaskID

    from ripieno.conductor.policy import TinyPolicy
    from ripieno.conductor.turns import TurnPolicy
    from ripieno.evaluate.conductor import Exam, ExamRuns
    from ripieno.evaluate.conductor_report import ConductorReport
    from ripieno.learn.conductor import ConductorRecipe
    from ripieno.learn.lm import LmRecipe
    from ripieno.workbench.scenes import Stage

Advance = Callable[[int], None]

FOLDER = "conductor"
_SHORT = {"pools": 8, "teach_steps": 50, "reinforce_steps": 5, "polish_generations": 2, "common_tasks": 32}
"""A short training: for a first look, and for tests."""
_SHORT_HEAD = {"pools": 8, "generations": 2, "population": 4, "common_tasks": 32, "checked_tasks": 64}
_SCORES = (
    number("right", spec=".3f"), number("cost", unit="0.001 USD", spec=".2f"), number("reward", spec=".3f"),
)  # fmt: skip


@click.group(epilog="\b\nExample:\n  ripieno conductor train --seeds 3\n  ripieno conductor evaluate")
def conductor() -> None:
    """Train, evaluate and use the conductor: a small policy that writes plans of several steps."""


@conductor.command(epilog="\b\nExample:\n  ripieno conductor audit")
@click.option("--pools", type=click.IntRange(2), default=20, show_default=True, help="Pools to measure.")
@click.option("--tasks", type=click.IntRange(6), default=40, show_default=True, help="Tasks of each family and pool.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def audit(*, pools: int, tasks: int, as_json: bool) -> None:
    """Measure how much plans can gain, before training."""
    import numpy as np

    from ripieno.workbench.audit import audit as measure
    from ripieno.workbench.world import World

    with World() as world, count_bar("pools", pools) as advance:
        rng = np.random.default_rng([0, 29])
        drawn = [world.draw_pool("test", rng) for _ in range(pools)]
        ladder = measure(world, drawn, split="test", tasks=tasks, on_progress=advance)
    names = ("random worker", "best single", "one-step ceiling", "search ceiling")
    rungs = zip(names, (ladder.random, ladder.single, ladder.one_step, ladder.search), strict=True)
    verdict = "train" if ladder.is_worth_training else "do not train"
    listed = {name: {"right": r, "cost": c, "reward": w} for name, (r, c, w) in rungs}
    report = Report(
        title="ladder",
        columns=(text("rung"), *_SCORES),
        rows=[{"rung": name} | rung for name, rung in listed.items()],
        notes=(f"plans add {ladder.headroom:+.3f} to single steps: {verdict}",),
    )
    print_found({"ladder": listed, "headroom": ladder.headroom, "verdict": verdict}, report, as_json=as_json)


@conductor.command(epilog="\b\nExample:\n  ripieno conductor train --seeds 3")
@click.option("--size", type=click.Choice(["tiny", "turns", "lm"]), default="tiny", show_default=True,
              help="A small policy, its turn-level head, or a language model (extra `lm`).")  # fmt: skip
@click.option("--model", help="With --size lm: a name on the hub, or a folder. Default: the bundled one.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="With --size lm.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="With --size lm: most minutes of each stage.")
@click.option(
    "--seeds", type=click.IntRange(1, 20), default=1, show_default=True, help="Number of trainings, one per seed."
)
@click.option("--seed", type=int, default=0, show_default=True, help="The first seed.")
@click.option("--short", is_flag=True, help="Train for half a minute only, for a first look.")
@click.option("--ablations", is_flag=True, help="Also train without each part, to show its value.")
@prints_json
def train(
    config: Path | None,
    *,
    size: str,
    model: str | None,
    device: str,
    seeds: int,
    seed: int,
    minutes: float | None,
    short: bool,
    ablations: bool,
    as_json: bool,
) -> None:
    """Train the tiny conductor, and the one-step router that it is compared with. An interrupted training resumes.

    With --size turns, also train the head that chooses step by step.
    """
    from ripieno.config import load_settings

    if size == "lm":
        from ripieno.learn.lm import SHORT, LmRecipe

        asked = LmRecipe(model=model, device=device, seed=seed, minutes=minutes)
        _train_lm(config, replace(asked, **SHORT) if short else asked, as_json=as_json)  # type: ignore[arg-type]
        return
    from ripieno.plugins import require_extra

    require_extra("conductor", "`ripieno conductor train`", ("cma",))
    folder = load_settings(config).settings.home / FOLDER
    made: list[dict[str, object]] = []
    with _open_bench() as stage:
        for number in range(seed, seed + seeds):
            for name, recipe in list_recipes(number, is_short=short, has_ablations=ablations).items():
                began = time.process_time()
                policy = _train_one(_stage_of(name, stage), recipe, folder, name)
                made.append(_report_training(name, number, policy.size, time.process_time() - began))
            if size == "turns":
                began = time.process_time()
                head = _train_head(stage, folder, number, is_short=short)
                made.append(_report_training("turn-level head", number, head.size, time.process_time() - began))
    if as_json:
        print_json({"trained": made, "folder": str(folder)})
    else:
        say(f"in {folder}; evaluate it: ripieno conductor evaluate")


@conductor.command(epilog="\b\nExample:\n  ripieno conductor evaluate --pools 100")
@click.option("--pools", type=click.IntRange(2), default=100, show_default=True, help="Number of unseen pools.")
@click.option("--tasks", type=click.IntRange(1), default=2, show_default=True, help="Tasks of each family and pool.")
@click.option("--prompted", metavar="WORKER", help="Also let a worker of the pool write plans for the exam.")
@click.option("--gate", is_flag=True, help="Exit 5 if the conductor does not beat the one-step router.")
@prints_json
def evaluate(config: Path | None, *, pools: int, tasks: int, prompted: str | None, gate: bool, as_json: bool) -> None:
    """Compare the trained conductors with controls of equal cost, on unseen workers, pools and phrasings."""
    from ripieno.config import load_settings
    from ripieno.evaluate import conductor as proof
    from ripieno.evaluate.conductor_report import ONE_STEP

    folder = load_settings(config).settings.home / FOLDER
    with _open_bench() as stage:
        policies = _load_all(folder, stage)
        exam = proof.make_exam(stage.world, pools=pools, tasks=tasks, seed=0)
        if prompted is not None:
            _write_by_prompt(config, stage, exam, prompted, folder)
        with count_bar("cells", pools * len(stage.world.families)) as advance:
            found = _sit_all(stage, exam, policies, _load_others(folder, stage, exam), advance)
    print_found(found.describe(), *found.tabulate(), as_json=as_json)
    lead = found.find(ONE_STEP).lead_reward
    if gate and (lead is None or lead.low <= 0.0):
        raise GateRefused(found.verdict)


@conductor.command(
    epilog='\b\nExample:\n  ripieno conductor plan "Take the word planet, reverse it, then count its letters."'
)
@task_options
@prints_json
def plan(config: Path | None, *, options: TaskOptions, as_json: bool) -> None:
    """Show the plan that TEXT would run. Only a prompted conductor makes a call."""
    from ripieno.domain import Plan

    planned = replace(options, workflow=options.workflow or Mode.PLAN.value)
    decision, calls = run_app(config, lambda app: app.runtime.orchestrator.preview_plan(planned.make_task(app)))
    workflow = decision.workflow
    if as_json:
        steps = workflow.steps if isinstance(workflow, Plan) else ()
        listed = [{"worker": s.worker, "op": s.op, "access": list(s.access), "text": s.text} for s in steps]
        known, unknown = sum_costs([call.cost_usd for call in calls])
        cost = None if unknown else known
        print_json(describe(decision) | {"workflow": type(workflow).__name__.lower(), "plan": listed, "plan_usd": cost})
        return
    if isinstance(workflow, Plan):
        for number, step in enumerate(workflow.steps, start=1):
            seen = ", ".join(str(index + 1) for index in step.access) or "the question"
            click.echo(
                f"{number}. {step.worker} is to {step.op}, from {seen}" + (f": {step.text}" if step.text else "")
            )
    else:
        click.echo(f"{workflow.worker} answers alone")
    for reason in decision.reasons[:2]:
        say(f"why: {reason}")


def list_recipes(seed: int, *, is_short: bool, has_ablations: bool) -> dict[str, ConductorRecipe]:
    """List the trainings of one seed, by name."""
    from ripieno.evaluate.conductor_report import ONE_STEP, TRAINED
    from ripieno.learn.conductor import ConductorRecipe

    base = ConductorRecipe(seed=seed)
    if is_short:
        base = replace(base, **_SHORT)  # type: ignore[arg-type]  # numbers, by name
    found = {TRAINED: base, ONE_STEP: replace(base, most_steps=1)}
    if has_ablations:
        found |= {
            "without rollouts": replace(base, reinforce_steps=0, polish_generations=0),
            "without teaching": replace(base, teach_steps=0),
            "without cost": replace(base, counts_cost=False),
            "without other pools": replace(base, shuffles_pools=False),
            "names shown": base,
        }
    return found


@contextmanager
def _open_bench() -> Iterator[Stage]:
    from ripieno.encoders.static import StaticEncoder
    from ripieno.workbench.scenes import Stage
    from ripieno.workbench.world import World

    with World() as world:
        yield Stage(world, StaticEncoder())


def _stage_of(name: str, stage: Stage) -> Stage:
    from ripieno.encoders.static import StaticEncoder
    from ripieno.workbench.scenes import Stage

    return Stage(stage.world, StaticEncoder(), shows_names=True) if name == "names shown" else stage


def _train_one(stage: Stage, recipe: ConductorRecipe, folder: Path, name: str) -> TinyPolicy:
    """Run one training with a progress bar, and save the policy with its card."""
    from ripieno.learn.conductor import Training, finish

    slug = name.replace(" ", "-")
    with _stage_bars(name) as told:
        training = Training(stage, recipe, folder / f"{slug}-{recipe.seed}", on_progress=told)
        training.run()
    return finish(training, folder / f"{slug}-{recipe.seed}.safetensors", name=name)


def _report_training(name: str, seed: int, parameters: int, cpu_s: float) -> dict[str, object]:
    say(f"{name}, seed {seed}: {parameters} parameters, {cpu_s:.0f} CPU-seconds")
    return {"name": name, "seed": seed, "parameters": parameters, "cpu_s": cpu_s}


def _train_head(stage: Stage, folder: Path, seed: int, *, is_short: bool) -> TurnPolicy:
    """Train the head of one seed's conductor, and save it with its card."""
    from ripieno.conductor.tiny import load_policy
    from ripieno.conductor.turns import save_turn_policy
    from ripieno.learn.turns import TurnRecipe, train_turns

    recipe = TurnRecipe(seed=seed)
    if is_short:
        recipe = replace(recipe, **_SHORT_HEAD)
    base, _ = load_policy(folder / f"conductor-{seed}.safetensors", encoder=stage.encoder_name)
    with _stage_bars("turn-level head") as told:
        policy = train_turns(stage, base, recipe, folder / "turns" / f"state-{seed}", on_progress=told)
    card = {"name": "turn-level head", "recipe": asdict(recipe), "parameters": policy.size}
    save_turn_policy(folder / "turns" / f"{seed}.safetensors", policy, encoder=stage.encoder_name, card=card)
    return policy


def _train_lm(config: Path | None, recipe: LmRecipe, *, as_json: bool) -> None:
    """Train a language model. The exam of `evaluate` measures it meanwhile."""
    from ripieno.config import load_settings
    from ripieno.learn.lm import require_libraries, train_lm

    require_libraries()
    folder = load_settings(config).settings.home / FOLDER / f"lm-{recipe.seed}"
    with _open_bench() as stage, _stage_bars("language model") as told:
        seen = train_lm(stage, recipe, folder, on_progress=told)
    measured = {name: asdict(found) for name, found in seen.items()}
    columns = (text("seen"), number("parsed", spec=".3f"), *_SCORES)
    report = Report(title="", columns=columns, rows=[{"seen": name} | row for name, row in measured.items()])
    print_found({"folder": str(folder)} | measured, report, as_json=as_json)
    if not as_json:
        say(f"in {folder / 'model'}: serve it, and name it in conductor.worker")


@contextmanager
def _stage_bars(name: str) -> Iterator[Callable[[str, int, int, str], None]]:
    """Show a progress bar for each stage. Without a terminal, print a line every ten steps."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[seen]}"), console=Console(stderr=True), transient=True) as bar:
        bars: dict[str, TaskID] = {}

        def told(stage: str, step: int, steps: int, seen: str) -> None:
            if stage not in bars:
                bars[stage] = bar.add_task(f"{name}: {stage}", total=steps, seen="")
            fields = {"seen": seen} if seen else {}
            bar.update(bars[stage], completed=step, total=steps, **fields)  # type: ignore[arg-type]  # rich's fields
            if not bar.console.is_terminal and (step == steps or step % 10 == 0):
                say(f"{name}: {stage} {step}/{steps} {seen}")

        yield told


def _load_all(folder: Path, stage: Stage) -> dict[str, list[TinyPolicy]]:
    """Load every trained policy by name, one per seed.

    Raises:
        NotFound: nothing was trained.
    """
    from ripieno.conductor.tiny import load_policy
    from ripieno.evaluate.conductor_report import ONE_STEP, TRAINED

    found: dict[str, list[TinyPolicy]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        policy, card = load_policy(path, encoder=stage.encoder_name)
        found.setdefault(str(card["name"]), []).append(policy)
    if TRAINED not in found or ONE_STEP not in found:
        raise NotFound(f"no trained conductor is in {folder}", hint="train one: `ripieno conductor train`")
    return found


def _write_by_prompt(config: Path | None, stage: Stage, exam: Exam, name: str, folder: Path) -> None:
    """Let an untrained worker write the plans of the exam. An interrupted exam resumes."""
    from ripieno.app import Installation
    from ripieno.conductor import make_prompt
    from ripieno.measure import require_plain
    from ripieno.providers import CallAnswered
    from ripieno.workbench.scenes import make_brief

    path = folder / f"lm-{name}" / f"plans-prompted-{len(exam.tasks)}.json"
    written = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    families = stage.guess_families(exam.tasks)

    async def work(app: Installation) -> None:
        require_workers(app.runtime.pool, [name])
        require_plain([app.runtime.pool[name]])
        path.parent.mkdir(parents=True, exist_ok=True)
        with count_bar("plans by prompt", len(exam.tasks)) as advance:
            for place in range(len(exam.tasks)):
                if place >= len(written):
                    brief = make_brief(exam.tasks[place], exam.pools[place], families[place])
                    result = await app.runtime.caller.call(app.runtime.pool[parse_worker_id(name)], make_prompt(brief))
                    written.append(result.answer.text if isinstance(result, CallAnswered) else "")
                    path.with_suffix(".part").write_text(json.dumps(written), encoding="utf-8")
                    path.with_suffix(".part").replace(path)
                advance(place + 1)

    run_app(config, work, decides=False)


def _load_others(folder: Path, stage: Stage, exam: Exam) -> dict[str, ExamRuns]:
    """Load the results of turn-level heads, and of language models that took this exam."""
    from ripieno.conductor.turns import load_turn_policy
    from ripieno.evaluate import conductor as proof

    found, paths = {}, sorted(folder.glob("turns/*.safetensors"))
    if paths:
        heads = [load_turn_policy(path, encoder=stage.encoder_name)[0] for path in paths]
        found["turn-level head"] = proof.sit_policies(stage, exam, heads)
    for path in sorted(folder.glob("lm-*/plans-*.json")):
        written = json.loads(path.read_text(encoding="utf-8"))
        if len(written) == len(exam.tasks):
            found[f"language model, {path.stem.split('-')[1]}"] = proof.sit_texts(stage.world, exam, written)
    return found


def _sit_all(
    stage: Stage, exam: Exam, policies: dict[str, list[TinyPolicy]], others: dict[str, ExamRuns], advance: Advance
) -> ConductorReport:
    world = stage.world
    import numpy as np

    from ripieno.conductor.policy import TinyPolicy
    from ripieno.evaluate import conductor as proof
    from ripieno.evaluate.conductor_report import CEILING, GATED, ONE_STEP, TRAINED

    ranked = proof.choose_singles(world, exam, seed=0)
    untrained = TinyPolicy.init(tasks=stage.task_size, words=stage.words_size, rng=np.random.default_rng(0))
    named = _stage_of("names shown", stage) if "names shown" in policies else stage
    plans = {"untrained": [proof.write_plans(untrained, stage, exam)]}
    for name, trained in policies.items():
        seen = named if name == "names shown" else stage
        plans[name] = [proof.write_plans(policy, seen, exam) for policy in trained]
    plans[GATED] = [
        proof.gate_plans(stage, exam, ours, router, seed=0)
        for ours, router in zip(policies[TRAINED], policies[ONE_STEP], strict=False)
    ]
    ours = [outcome for run in plans[TRAINED] for outcome in proof.sit(world, exam, run)]
    calls = float(np.mean([outcome.steps for outcome in ours]))
    price = float(np.mean([outcome.cost for outcome in ours]))
    by_hand = proof.plan_by_hand(exam, ranked, calls=calls, money=price)
    plans |= {name: [written] for name, written in by_hand.items()}
    others["conductor, once more where nothing came"] = proof.sit_policies(stage, exam, policies[TRAINED])
    plans["its plans, best worker only"] = [proof.force_best(exam, run, ranked) for run in plans[TRAINED]]
    plans[CEILING] = [proof.find_ceiling(world, exam, seed=0, on_progress=advance)]
    return proof.report(exam, plans, world, others=others)
