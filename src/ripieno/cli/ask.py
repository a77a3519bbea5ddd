"""`ripieno ask` and `ripieno route`."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from ripieno.cli.options import prints_json
from ripieno.cli.output import print_json, print_report, say
from ripieno.cli.removed import ChoiceWithRemoved
from ripieno.cli.running import require_workers, run_app
from ripieno.domain import Mode
from ripieno.domain.memory import Scope
from ripieno.domain.objective import REMOVED_MODES
from ripieno.domain.report import Report, format_money, format_seconds, money, number, seconds, text
from ripieno.errors import InvalidTask

if TYPE_CHECKING:
    from ripieno.app import Installation
    from ripieno.domain import Arrival, Decision, Run, Task

_OBJECTIVE = ("preset", "preference", "mission_criticality", "time_criticality")
_ESTIMATE = (
    "worker", "quality", "quality_sd", "cost_usd", "latency_s", "output_tokens", "first_token_s", "tokens_per_s",
    "score", "standing",
)  # fmt: skip
_SCORED = (
    text("worker"), number("utility", spec="+.3f"), number("quality"), money("cost"), seconds("latency"),
)  # fmt: skip


Command = TypeVar("Command", bound=Callable[..., None])

_MODES = ChoiceWithRemoved(
    [mode.value for mode in Mode],
    removed={name: f"'{instead.value}' or 'plan'" for name, instead in REMOVED_MODES.items()},
)
_PRESETS = click.Choice(["balanced", "best", "fast", "cheap", "private", "qos"])


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """A task and its objective, as command line options state them."""

    text: str
    preference: float | None
    preset: str | None
    mission: float | None
    time_: float | None
    workers: tuple[str, ...]
    workflow: str | None
    check: str | None
    memory: str | None

    def make_task(self, app: Installation) -> Task:
        """Make the task with its objective.

        Raises:
            InvalidTask: the task is empty, or names a worker that does not exist.
        """
        words = sys.stdin.read() if self.text == "-" else self.text
        if not words.strip():
            raise InvalidTask("the task is empty", param="text")
        require_workers(app.runtime.pool, self.workers)
        mode = Mode(self.workflow) if self.workflow is not None else None
        base = app.runtime.make_objective(self.preset, preference=self.preference)
        objective = replace(base, workers=self.workers, mode=mode)
        given = {"mission_criticality": self.mission, "time_criticality": self.time_}
        stated = {name: value for name, value in given.items() if value is not None}
        objective = replace(objective, stated=frozenset(stated), **stated)  # type: ignore[arg-type]  # numbers, by name
        from ripieno.domain import Task

        return Task.from_text(words, objective=objective)

    def make_arrival(self, app: Installation) -> Arrival:
        """Make the arrival, with the check of its answers.

        Raises:
            InvalidTask: the check is invalid.
        """
        from ripieno.orchestrator import make_arrival
        from ripieno.tasks.graders import read_check

        scope = Scope(project=self.memory) if self.memory is not None else None
        if self.check is None:
            return replace(make_arrival(app.clock), memory=scope)
        try:
            return replace(make_arrival(app.clock, check=read_check(json.loads(self.check))), memory=scope)
        except (ValueError, TypeError) as error:
            raise InvalidTask(f"--check: {error}", param="check") from error


def task_options(command: Command) -> Command:
    """Add the argument and the options that describe a task."""
    declared = (
        click.argument("text"),
        click.option("--preference", type=click.FloatRange(0, 1), help="The dial: 0 is cheapest, 1 is best."),
        click.option("--preset", type=_PRESETS, help="A preset of the objective."),
        click.option(
            "--mission", type=click.FloatRange(0, 10), help="Mission criticality: the cost of a wrong answer, 0 to 10."
        ),
        click.option(
            "--time",
            "time_",
            type=click.FloatRange(0, 10),
            help="Time criticality: the cost of a slow answer, 0 to 10.",
        ),
        click.option("--worker", "workers", multiple=True, help="Allow only this worker. Repeat it for several."),
        click.option("--workflow", type=_MODES, help="The workflow. Default: the router chooses."),
        click.option(
            "--memory", metavar="PROJECT", help="Recall items of this project's memory, and store the answer in it."
        ),
        click.option("--check", "check", help="The check of answers, as JSON. See the how-to on workflows."),
    )

    @functools.wraps(command)
    def gathered(**given: Any) -> None:
        options = TaskOptions(**{field.name: given.pop(field.name) for field in fields(TaskOptions)})
        command(options=options, **given)

    for option in reversed(declared):
        gathered = option(gathered)
    return cast(Command, gathered)


@click.command(epilog='\b\nExample:\n  ripieno ask "Solve 3x + 4 = 19 for x" --preset cheap --explain')
@task_options
@click.option("--explain", "wants_explanation", is_flag=True, help="Explain the choice, on stderr.")
@prints_json
def ask(config: Path | None, *, options: TaskOptions, wants_explanation: bool, as_json: bool) -> None:
    """Route TEXT to a worker, and print its answer. `-` reads TEXT from stdin."""
    answered = run_app(
        config,
        lambda app: app.runtime.orchestrator.run_detailed(options.make_task(app), arrival=options.make_arrival(app)),
    )
    decision, run = answered.decision, answered.run
    if as_json:
        print_json(
            {
                "answer": answered.answer.text,
                "decision": decision.id,
                "worker": run.worker,
                "cost_usd": run.cost_usd,
                "latency_s": run.latency_s,
                "why": decision.reasons,
                "workflow": run.workflow,
                "steps": list_steps(run),
                "ended_early": run.ended_early,
            }
        )
        return
    click.echo(answered.answer.text)
    say(
        f"{run.worker}, {format_money(run.cost_usd)}, {format_seconds(run.latency_s)}; "
        f"ripieno explain {decision.id[:12]}"
    )
    if wants_explanation:
        for reason in decision.reasons:
            say(f"why: {reason}")
        for line in describe_steps(run):
            say(line)


@click.command(epilog='\b\nExample:\n  ripieno route "How many days until 2027-01-01 from 2026-11-22?"')
@task_options
@click.option("--explain", "wants_explanation", is_flag=True, help="Also print what would change the decision.")
@prints_json
def route(config: Path | None, *, options: TaskOptions, wants_explanation: bool, as_json: bool) -> None:
    """Decide which worker would get TEXT, without calling or recording anything. `-` reads TEXT from stdin."""
    from ripieno.route.explain import explain

    decision = run_app(
        config, lambda app: app.runtime.orchestrator.decide(options.make_task(app), arrival=options.make_arrival(app))
    )
    if as_json:
        print_json(describe(decision))
        return
    show(decision)
    if wants_explanation:
        for change in explain(decision).changes:
            say(f"change: {change}")


def list_steps(run: Run) -> list[dict[str, object]]:
    """List the calls and findings of a run for JSON, in the order of its steps."""
    made: list[tuple[str, dict[str, object]]] = []
    for call in run.calls:
        facts: dict[str, object] = {"step": call.step, "worker": call.worker, "failure": call.failure}
        made.append((call.step, facts | {"cost_usd": call.cost_usd, "latency_s": call.latency_s}))
    for found in run.findings:
        verdict = found.verdict
        facts = {"step": found.step, "verifier": verdict.verifier, "of": found.author}
        made.append((found.step, facts | {"quality": verdict.quality, "detail": verdict.detail}))
    for missing in run.unchecked:
        facts = {"step": missing.step, "verifier": missing.verifier, "of": missing.author}
        made.append((missing.step, facts | {"quality": None, "detail": f"not judged: {missing.reason}"}))
    return [step for _, step in sorted(made, key=lambda pair: pair[0])]


def describe_steps(run: Run) -> Iterator[str]:
    """Describe each call and finding of a run in one line."""
    lines: list[tuple[str, str]] = []
    for call in run.calls:
        fate = "answered" if call.failure is None else f"failed: {call.failure}"
        lines.append(
            (call.step, f"{call.worker} {fate}, {format_money(call.cost_usd)}, {format_seconds(call.latency_s)}")
        )
    for found in run.findings:
        verdict = found.verdict
        says = f"{verdict.verifier} gives {found.author} {verdict.quality:.2f}"
        lines.append((found.step, f"{says}: {verdict.detail}" if verdict.detail else says))
    lines += [(each.step, f"{each.author} is not judged: {each.reason}") for each in run.unchecked]
    for name, line in sorted(lines, key=lambda pair: pair[0]):
        yield f"step {name}: {line}" if name else f"call: {line}"
    if run.ended_early is not None:
        yield f"ended early: {run.ended_early}"


def describe(decision: Decision) -> dict[str, object]:
    """Describe a decision for JSON."""
    return {
        "decision": decision.id,
        "worker": decision.worker,
        "workflow": type(decision.workflow).__name__.lower(),
        "mode": decision.learned_workflow,
        "why": list(decision.reasons),
        "propensity": decision.propensity,
        "policy": decision.policy,
        "predictor": decision.predictor,
        "kind": decision.kind,
        "objective": {name: getattr(decision.objective, name) for name in _OBJECTIVE},
        "decide_s": decision.decide_s,
        "advice": dict(decision.advice),
        "abstains": decision.abstains,
        "estimates": [
            {name: getattr(each, name) for name in _ESTIMATE} | {"utility": decision.utilities[each.worker]}
            for each in decision.estimates
        ],
        "masked": {worker: {"reason": w.reason, "detail": w.detail} for worker, w in decision.mask.masked.items()},
    }


def show(decision: Decision) -> None:
    """Print a decision as tables."""
    from ripieno.route.explain import explain

    rows = [
        {
            "worker": f"{'>' if item.estimate.worker == decision.choice else ' '} {item.estimate.worker}",
            "utility": item.utility,
            "quality": f"{item.estimate.quality:.2f} +- {item.estimate.quality_sd:.2f}",
            "cost": item.estimate.cost_usd,
            "latency": item.estimate.latency_s,
        }
        for item in explain(decision).scored
    ]
    print_report(Report(title="", columns=_SCORED, rows=rows))
    for worker, why in decision.mask.masked.items():
        click.echo(f"  {worker}: masked, {why.reason} ({why.detail})")
    for reason in decision.reasons:
        say(f"why: {reason}")
    say(f"decided in {decision.decide_s * 1000:.1f} ms by {decision.policy} on {decision.predictor}")
