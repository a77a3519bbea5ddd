"""`ripieno evaluate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.output import money, print_json, print_table, say, seconds
from ripieno.cli.running import run_app
from ripieno.errors import GateRefused
from ripieno.plugins import find_plugins

if TYPE_CHECKING:
    from ripieno.app import App
    from ripieno.evaluate import Interval, Report
    from ripieno.evaluate.benchmark import Benchmark, BenchmarkResult
    from ripieno.evaluate.newcomers import ProbeLine
    from ripieno.evaluate.transfer import TransferLine


class CountList(click.ParamType):
    """Whole numbers, separated by commas."""

    name = "counts"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Check each number."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdigit() for part in parts):
            self.fail(f"{value!r} is not a list like 0,5,20", param, ctx)
        return tuple(sorted({int(part) for part in parts}))


class KindList(click.ParamType):
    """Names of predictors, separated by commas."""

    name = "names"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Check each name."""
        from ripieno.route.predictors import KINDS

        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in str(value).split(",") if name.strip())
        for name in names:
            if name not in KINDS and name not in find_plugins("ripieno.predictors"):
                self.fail(f"{name!r} is none of {', '.join(sorted(KINDS))}", param, ctx)
        return names or self.fail("name at least one", param, ctx)


_FOLDER = click.Path(path_type=Path, exists=False, file_okay=False)


@click.command(epilog="\b\nExample:\n  ripieno evaluate --data outcomes/ --predictions predictions.parquet")
@click.option("--data", type=_FOLDER, required=True, help="A routing-data folder.")
@click.option(
    "--checkpoint", type=_FOLDER, help="A checkpoint folder; without it one is trained on the training split."
)
@click.option("--policy", "kinds", type=KindList(), default="stack", show_default=True,
              help="Without a checkpoint: the predictor to prove, then others to compare with, by commas.")  # fmt: skip
@click.option("--preference", type=click.FloatRange(0, 1), help="The dial; quality alone decides if not given.")
@click.option(
    "--predictions", type=click.Path(path_type=Path, dir_okay=False), help="Write the test split's estimates."
)
@click.option(
    "--plots", type=_FOLDER, help="Draw curve, calibration and confusion into this folder, as SVG and one HTML page."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--leave-one-worker-out", "leaves_out", is_flag=True,
              help="Treat each worker as new in turn: what do a few probes foretell of it?")  # fmt: skip
@click.option("--leave-dataset-out", "leaves_dataset_out", is_flag=True,
              help="Train without each kind in turn: what is the router worth on unseen kinds?")  # fmt: skip
@click.option("--probes", type=CountList(), default="0,5,10,20,50,100", show_default=True,
              help="With --leave-one-worker-out: how many probes.")  # fmt: skip
@click.option("--gate", is_flag=True, help="Exit 5 if the router is proven worse than the best single worker.")
@click.pass_obj
def evaluate(
    config: Path | None,
    *,
    data: Path,
    checkpoint: Path | None,
    kinds: tuple[str, ...],
    preference: float | None,
    predictions: Path | None,
    plots: Path | None,
    seed: int,
    as_json: bool,
    leaves_out: bool,
    leaves_dataset_out: bool,
    probes: tuple[int, ...],
    gate: bool,
) -> None:
    """Prove a router on the held-out prompts of a data set, beside every baseline, with intervals."""
    import numpy as np

    from ripieno.evaluate.benchmark import BASELINE_KINDS, BEST_QUALITY, judge, prepare
    from ripieno.learn import analyze_prompts, load_checkpoint
    from ripieno.route.predictors import Checkpoint
    from ripieno.tasks import read_folder

    if leaves_out:
        show_newcomers(config, data, probes, seed=seed, as_json=as_json)
        return

    if leaves_dataset_out:
        show_transfer(config, data, kind=kinds[0], seed=seed, as_json=as_json)
        return

    async def work(app: App) -> tuple[Benchmark, BenchmarkResult]:
        source = read_folder(data)
        bench = prepare(source, await analyze_prompts(app.analyzer, source))
        if checkpoint is not None:
            router, _ = load_checkpoint(checkpoint, schema=app.analyzer.schema)
        else:
            router = Checkpoint.fit(kinds[0], bench.train, rng=np.random.default_rng(seed))
        objective = BEST_QUALITY if preference is None else app.make_objective(preference=preference)
        baselines = tuple(dict.fromkeys((*BASELINE_KINDS, *kinds[1:])))
        return bench, judge(bench, router, objective=objective, baselines=baselines, seed=seed)

    bench, judged = run_app(config, work, decides=False)
    if predictions is not None:
        write_predictions(bench, judged, predictions)
    if plots is not None:
        draw(bench, judged, plots)
    if as_json:
        print_json(describe_report(judged.report))
    else:
        show_report(judged.report)
    gain = judged.report.line("router").utility_gain
    if gate and gain.high < 0:
        raise GateRefused(f"the router is proven worse than the best single worker: {gain.mean:+.4f} utility")


def show_transfer(config: Path | None, data: Path, *, kind: str, seed: int, as_json: bool) -> None:
    """Print what leaving each kind of tasks out shows."""
    from ripieno.evaluate.transfer import leave_dataset_out
    from ripieno.learn import analyze_prompts
    from ripieno.tasks import read_folder

    async def work(app: App) -> list[TransferLine]:
        source = read_folder(data)
        return leave_dataset_out(source, await analyze_prompts(app.analyzer, source), kind=kind, seed=seed)

    lines = run_app(config, work, decides=False)
    if as_json:
        print_json([asdict(line) for line in lines])
        return
    rows = [
        [line.name, str(line.tasks), f"{line.best_single:.4f}", f"{line.router:.4f}", _show_interval(line.gain)]
        for line in lines
    ]
    mean = sum(line.gain.mean for line in lines) / len(lines)
    title = f"{data.resolve().name}: each kind left out of the training in turn; {100 * mean:+.2f} points on average"
    print_table(title, ("kind", "tasks", "best single of the others", "router", "gain [95 %]"), rows)


def show_newcomers(config: Path | None, data: Path, probes: tuple[int, ...], *, seed: int, as_json: bool) -> None:
    """Print what leaving each worker out shows."""
    from ripieno.evaluate.benchmark import prepare
    from ripieno.evaluate.newcomers import leave_one_out
    from ripieno.learn import analyze_prompts
    from ripieno.tasks import read_folder

    async def work(app: App) -> list[ProbeLine]:
        source = read_folder(data)
        bench = prepare(source, await analyze_prompts(app.analyzer, source))
        return leave_one_out(bench.train, bench.test, probes=probes, seeds=(seed, seed + 1, seed + 2))

    lines = run_app(config, work, decides=False)
    if as_json:
        print_json([asdict(line) for line in lines])
        return
    rows = [
        [
            str(line.probes),
            f"{line.rmse:.3f}",
            f"{line.rmse_raw:.3f}",
            f"{line.rmse_pool:.3f}",
            f"{100 * line.regret:.2f}",
            f"{line.coverage:.0%}",
        ]
        for line in lines
    ]
    print_table(
        f"{data.resolve().name}: each worker left out in turn, three seeds; error of its accuracy in each kind of task",
        ("probes", "RMSE", "RMSE of raw means", "RMSE of the pool's mean", "regret, points", "80 % cover"),
        rows,
    )


def write_predictions(bench: Benchmark, judged: BenchmarkResult, path: Path) -> None:
    """Write estimated quality for each held-out (prompt, model); the name's end says the form."""
    import numpy as np

    from ripieno.tasks.tables import write_table

    prompts = [bench.data.prompts[row].id for row in bench.test_rows]
    models = list(bench.held_out.workers)
    columns = {
        "prompt_id": np.repeat(prompts, len(models)).tolist(),
        "model_id": np.tile(models, len(prompts)).tolist(),
        "score": judged.probabilities.ravel().tolist(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(columns, path)
    say(f"wrote {path}")


def draw(bench: Benchmark, judged: BenchmarkResult, folder: Path) -> list[Path]:
    """Draw what a report shows; gives the files."""
    from ripieno.evaluate.page import render_page
    from ripieno.evaluate.plots import plot_calibration, plot_confusion, plot_curve

    folder.mkdir(parents=True, exist_ok=True)
    name = judged.report.name
    pictures = {"calibration": folder / "calibration.svg", "confusion": folder / "confusion.svg"}
    plot_calibration(judged.probabilities, bench.held_out, pictures["calibration"], name=name)
    plot_confusion(judged.chosen, bench.held_out, pictures["confusion"], name=name)
    if bench.held_out.has_costs:
        pictures["cost and quality"] = folder / "cost-quality.svg"
        plot_curve(judged.report, bench.held_out, pictures["cost and quality"])
    page = folder / "report.html"
    page.write_text(render_page(judged.report, pictures), encoding="utf-8")
    drawn = [*pictures.values(), page]
    for path in drawn:
        say(f"drew {path}")
    return drawn


def show_report(report: Report) -> None:
    """The table of proof."""
    rows = [
        [
            line.name,
            f"{line.quality.mean:.4f}",
            _show_interval(line.gain),
            money(line.cost_usd),
            seconds(line.latency_s),
            f"{line.utility.mean:+.4f}",
            _show_interval(line.utility_gain),
            "-" if line.gap_closed is None else f"{line.gap_closed:.0%}",
            line.note,
        ]
        for line in report.lines
    ]
    sizes = f"{report.tasks} held-out tasks, {report.train_tasks} to learn from, {len(report.workers)} workers"
    title = f"{report.name}: {sizes}"
    columns = (
        "policy",
        "quality",
        "against best single",
        "cost",
        "latency",
        "utility",
        "gain [95 %]",
        "gap closed",
        "note",
    )
    print_table(title, columns, rows)
    if report.area is not None and report.area_of_mix is not None:
        saved = report.saved_at_equal_quality
        click.echo(
            f"cost-quality area {report.area:.4f} (mix of single workers {report.area_of_mix:.4f}); "
            f"quality at the best single worker's cost {report.quality_at_best_cost:.4f}; "
            f"saved at its quality {'-' if saved is None else f'{saved:.0%}'}"
        )
    if report.calibration_error is not None:
        click.echo(f"calibration error {report.calibration_error:.4f}")
    covered = (("group means of quality", report.coverage), ("costs", report.cost_coverage),
               ("latencies", report.latency_coverage))  # fmt: skip
    told = [f"{share:.0%} of {name}" for name, share in covered if share is not None]
    if told:
        click.echo(f"80 % intervals cover {', '.join(told)}")
    if report.apgr is not None:
        of = ", ".join(f"{kind} {value:.3f}" for kind, value in report.apgr_of.items())
        click.echo(f"performance gap recovered between the two workers {report.apgr:.3f} ({of})")
    click.echo(report.verdict)


def describe_report(report: Report) -> dict[str, object]:
    """The table of proof as JSON."""
    return {
        "name": report.name,
        "tasks": report.tasks,
        "train_tasks": report.train_tasks,
        "workers": list(report.workers),
        "best_single": report.best_single,
        "verdict": report.verdict,
        "calibration_error": report.calibration_error,
        "area": report.area,
        "area_of_mix": report.area_of_mix,
        "quality_at_best_cost": report.quality_at_best_cost,
        "saved_at_equal_quality": report.saved_at_equal_quality,
        "margin": report.margin,
        "coverage": {"quality": report.coverage, "cost": report.cost_coverage, "latency": report.latency_coverage},
        "apgr": report.apgr,
        "apgr_of": dict(report.apgr_of),
        "quality_of": dict(report.quality_of),
        "policies": [
            {
                "name": line.name,
                "quality": _describe_interval(line.quality),
                "gain": _describe_interval(line.gain),
                "cost_usd": line.cost_usd,
                "latency_s": line.latency_s,
                "utility": _describe_interval(line.utility),
                "utility_gain": _describe_interval(line.utility_gain),
                "gap_closed": line.gap_closed,
                "note": line.note,
            }
            for line in report.lines
        ],
    }


def _describe_interval(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def _show_interval(interval: Interval) -> str:
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
