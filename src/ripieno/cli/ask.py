"""`ripieno ask` and `ripieno route`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from ripieno.app import App
from ripieno.cli.output import money, print_json, print_table, say, seconds
from ripieno.cli.running import run_app
from ripieno.domain import Decision, Run, Task
from ripieno.errors import InvalidTask
from ripieno.route.explain import explain

Command = TypeVar("Command", bound=Callable[..., None])

_PRESETS = click.Choice(["balanced", "best", "fast", "cheap", "private", "qos"])


def _task_options(command: Command) -> Command:
    """What `ask` and `route` take alike: the task and its objective."""
    options = (
        click.argument("text"),
        click.option("--preference", type=click.FloatRange(0, 1), help="The dial: 0 is cheapest, 1 is best."),
        click.option("--preset", type=_PRESETS, help="A named point of the trade-off."),
        click.option("--mission", type=click.FloatRange(0, 10), help="What being wrong costs, 0 to 10."),
        click.option("--time", "time_", type=click.FloatRange(0, 10), help="What being slow costs, 0 to 10."),
        click.option("--worker", "workers", multiple=True, help="Allow only this worker; may be given several times."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(epilog='\b\nExample:\n  ripieno ask "Solve 3x + 4 = 19 for x" --preset cheap --explain')
@_task_options
@click.option("--explain", "wants_explanation", is_flag=True, help="Tell why, on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def ask(
    config: Path | None,
    *,
    text: str,
    preference: float | None,
    preset: str | None,
    mission: float | None,
    time_: float | None,
    workers: tuple[str, ...],
    wants_explanation: bool,
    as_json: bool,
) -> None:
    """Route TEXT (`-` reads stdin) to the worker that should own it, and print the answer."""
    stated = {"mission_criticality": mission, "time_criticality": time_}

    async def work(app: App) -> tuple[Decision, Run]:
        return await app.orchestrator.handle(_make_task(app, text, preference, preset, stated, workers))

    decision, run = run_app(config, work)
    assert run.answer is not None
    if as_json:
        print_json(
            {
                "answer": run.answer.text,
                "decision": decision.id,
                "worker": run.worker,
                "cost_usd": run.cost_usd,
                "latency_s": run.latency_s,
                "why": decision.reasons,
            }
        )
        return
    click.echo(run.answer.text)
    say(f"{run.worker}, {money(run.cost_usd)}, {seconds(run.latency_s)}; ripieno explain {decision.id[:12]}")
    if wants_explanation:
        for reason in decision.reasons:
            say(f"why: {reason}")


@click.command(epilog='\b\nExample:\n  ripieno route "How many days until 2027-01-01 from 2026-11-22?"')
@_task_options
@click.option("--explain", "wants_explanation", is_flag=True, help="Tell what would change it, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def route(
    config: Path | None,
    *,
    text: str,
    preference: float | None,
    preset: str | None,
    mission: float | None,
    time_: float | None,
    workers: tuple[str, ...],
    wants_explanation: bool,
    as_json: bool,
) -> None:
    """Decide who would take TEXT (`-` reads stdin); nobody is called and nothing recorded."""
    stated = {"mission_criticality": mission, "time_criticality": time_}

    async def work(app: App) -> Decision:
        return await app.orchestrator.decide(_make_task(app, text, preference, preset, stated, workers))

    decision = run_app(config, work)
    if as_json:
        print_json(describe(decision))
        return
    show(decision)
    if wants_explanation:
        for change in explain(decision).changes:
            say(f"change: {change}")


def describe(decision: Decision) -> dict[str, object]:
    """A decision as JSON."""
    return {
        "decision": decision.id,
        "worker": decision.worker,
        "why": list(decision.reasons),
        "propensity": decision.propensity,
        "policy": decision.policy,
        "predictor": decision.predictor,
        "kind": decision.kind,
        "objective": {
            "preset": decision.objective.preset,
            "preference": decision.objective.preference,
            "mission_criticality": decision.objective.mission_criticality,
            "time_criticality": decision.objective.time_criticality,
        },
        "decide_s": decision.decide_s,
        "advice": dict(decision.advice),
        "abstains": decision.abstains,
        "estimates": [
            {
                "worker": e.worker,
                "quality": e.quality,
                "quality_sd": e.quality_sd,
                "cost_usd": e.cost_usd,
                "latency_s": e.latency_s,
                "utility": decision.utilities[e.worker],
                "output_tokens": e.output_tokens,
                "first_token_s": e.first_token_s,
                "tokens_per_s": e.tokens_per_s,
                "score": e.score,
                "standing": e.standing,
            }
            for e in decision.estimates
        ],
        "masked": {worker: {"reason": w.reason, "detail": w.detail} for worker, w in decision.mask.masked.items()},
    }


def show(decision: Decision) -> None:
    """A decision as tables."""
    rows = [
        [
            f"> {item.estimate.worker}" if item.estimate.worker == decision.worker else f"  {item.estimate.worker}",
            f"{item.utility:+.3f}",
            f"{item.estimate.quality:.2f} +- {item.estimate.quality_sd:.2f}",
            money(item.estimate.cost_usd),
            seconds(item.estimate.latency_s),
        ]
        for item in explain(decision).scored
    ]
    print_table("", ("worker", "utility", "quality", "cost", "latency"), rows)
    for worker, why in decision.mask.masked.items():
        click.echo(f"  {worker}: masked, {why.reason} ({why.detail})")
    for reason in decision.reasons:
        say(f"why: {reason}")
    say(f"decided in {decision.decide_s * 1000:.1f} ms by {decision.policy} on {decision.predictor}")


def _make_task(
    app: App,
    text: str,
    preference: float | None,
    preset: str | None,
    criticality: dict[str, float | None],
    workers: tuple[str, ...],
) -> Task:
    from dataclasses import replace

    words = sys.stdin.read() if text == "-" else text
    if not words.strip():
        raise InvalidTask("the task is empty", param="text")
    unknown = [worker for worker in workers if worker not in app.pool]
    if unknown:
        raise InvalidTask(f"no worker is called {unknown[0]!r}", hint=f"workers: {', '.join(app.pool.ids)}")
    objective = replace(app.make_objective(preset, preference=preference), workers=workers)
    stated = {name: value for name, value in criticality.items() if value is not None}
    objective = replace(objective, stated=frozenset(stated), **stated)  # type: ignore[arg-type]  # numbers, by name
    return Task.from_text(words, objective=objective)
