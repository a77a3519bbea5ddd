"""`ripieno evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ripieno.cli.options import FOLDER
from ripieno.cli.output import print_found, say
from ripieno.cli.running import run_app
from ripieno.errors import GateRefused

if TYPE_CHECKING:
    from ripieno.app import Installation
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
        from ripieno.plugins import find_plugins
        from ripieno.route.predictors import KINDS

        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in str(value).split(",") if name.strip())
        for name in names:
            if name not in KINDS and name not in find_plugins("ripieno.predictors"):
                self.fail(f"{name!r} is none of {', '.join(sorted(KINDS))}", param, ctx)
        return names or self.fail("name at least one", param, ctx)


@click.command(epilog="\b\nExample:\n  ripieno evaluate --data outcomes/ --predictions predictions.parquet")
@click.option("--data", type=FOLDER, required=True, help="A routing-data folder.")
@click.option("--checkpoint", type=FOLDER, help="A checkpoint folder. Default: train on the training split.")
@click.option("--policy", "kinds", type=KindList(), default="stack", show_default=True,
              help="Without a checkpoint: the predictor to evaluate, then others to compare, by commas.")  # fmt: skip
@click.option("--preference", type=click.FloatRange(0, 1), help="The dial. Default: quality alone.")
@click.option(
    "--predictions",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the estimates of the test split to this file.",
)
@click.option(
    "--plots", type=FOLDER, help="Draw curve, calibration and confusion into this folder, as SVG and one HTML page."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--leave-one-worker-out", "leaves_out", is_flag=True,
              help="Treat each worker as new in turn, and measure what a few probes predict.")  # fmt: skip
@click.option("--leave-dataset-out", "leaves_dataset_out", is_flag=True,
              help="Leave out each kind in turn, and measure the router on the unseen kind.")  # fmt: skip
@click.option("--probes", type=CountList(), default="0,5,10,20,50,100", show_default=True,
              help="With --leave-one-worker-out: numbers of probes.")  # fmt: skip
@click.option("--gate", is_flag=True, help="Exit 5 if the router is significantly worse than the best single worker.")
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
    """Evaluate a router on the held-out prompts of a data set, beside all baselines, with intervals."""
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

    async def work(app: Installation) -> tuple[Benchmark, BenchmarkResult]:
        source = read_folder(data)
        bench = prepare(source, await analyze_prompts(app.analyzer, source))
        if checkpoint is not None:
            router, _ = load_checkpoint(checkpoint, schema=app.analyzer.schema)
        else:
            router = Checkpoint.fit(kinds[0], bench.train, rng=np.random.default_rng(seed))
        objective = BEST_QUALITY if preference is None else app.runtime.make_objective(preference=preference)
        baselines = tuple(dict.fromkeys((*BASELINE_KINDS, *kinds[1:])))
        return bench, judge(bench, router, objective=objective, baselines=baselines, seed=seed)

    bench, judged = run_app(config, work, decides=False)
    report = judged.report
    if predictions is not None:
        write_predictions(bench, judged, predictions)
    if plots is not None:
        draw(bench, judged, plots)
    print_found(report, report.tabulate(), as_json=as_json)
    if gate and (gain := report.line("router").utility_gain).high < 0:
        raise GateRefused(f"the router is significantly worse than the best single worker: {gain.mean:+.4f} utility")


def show_transfer(config: Path | None, data: Path, *, kind: str, seed: int, as_json: bool) -> None:
    """Print the results of leaving out each kind of tasks."""
    from ripieno.evaluate.transfer import leave_dataset_out, tabulate_transfer
    from ripieno.learn import analyze_prompts
    from ripieno.tasks import read_folder

    async def work(app: Installation) -> list[TransferLine]:
        source = read_folder(data)
        return leave_dataset_out(source, await analyze_prompts(app.analyzer, source), kind=kind, seed=seed)

    lines = run_app(config, work, decides=False)
    print_found(lines, tabulate_transfer(lines, data.resolve().name), as_json=as_json)


def show_newcomers(config: Path | None, data: Path, probes: tuple[int, ...], *, seed: int, as_json: bool) -> None:
    """Print the results of leaving out each worker."""
    from ripieno.evaluate.benchmark import prepare
    from ripieno.evaluate.newcomers import leave_one_out, tabulate_probes
    from ripieno.learn import analyze_prompts
    from ripieno.tasks import read_folder

    async def work(app: Installation) -> list[ProbeLine]:
        source = read_folder(data)
        bench = prepare(source, await analyze_prompts(app.analyzer, source))
        return leave_one_out(bench.train, bench.test, probes=probes, seeds=(seed, seed + 1, seed + 2))

    lines = run_app(config, work, decides=False)
    print_found(lines, tabulate_probes(lines, data.resolve().name), as_json=as_json)


def write_predictions(bench: Benchmark, judged: BenchmarkResult, path: Path) -> None:
    """Write the estimated quality of each held-out (prompt, model). The file's extension chooses the format."""
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
    """Draw the plots of a report, and return the files."""
    from ripieno.dashboard.page import render_file
    from ripieno.evaluate.plots import plot_calibration, plot_confusion, plot_curve

    folder.mkdir(parents=True, exist_ok=True)
    name = judged.report.name
    pictures = {"calibration": folder / "calibration.svg", "confusion": folder / "confusion.svg"}
    plot_calibration(judged.probabilities, bench.held_out, pictures["calibration"], name=name)
    plot_confusion(judged.chosen, bench.held_out, pictures["confusion"], name=name)
    if bench.held_out.has_costs:
        pictures["cost and quality"] = folder / "cost-quality.svg"
        plot_curve(judged.report, judged.curves, bench.held_out, pictures["cost and quality"])
    page = folder / "report.html"
    page.write_text(render_file(judged.report.tabulate(), pictures), encoding="utf-8")
    drawn = [*pictures.values(), page]
    for path in drawn:
        say(f"drew {path}")
    return drawn
