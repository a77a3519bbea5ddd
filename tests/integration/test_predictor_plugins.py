"""A predictor of another package: the one of the how-to page, and what follows when it breaks."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.integration.conftest import Serve, open_app, write_pool
from tests.integration.test_app import TASK, make_outcomes, save_checkpoint
from tests.integration.test_dashboard import browsing

from ripieno.app import Installation
from ripieno.app.feedback import record_feedback
from ripieno.app.probing import make_prober
from ripieno.config import load_settings
from ripieno.domain import Executed, Judged, Staged, Task, Verdict
from ripieno.domain.grader import Exact, GradedTask
from ripieno.errors import CheckpointError, ConfigError, PredictorError
from ripieno.learn import Recipe, analyze_prompts, train
from ripieno.learn.promotion import start_canary
from ripieno.measure import Probing
from ripieno.plugins import load_plugin
from ripieno.route.predictors import Learner, make_learner
from ripieno.route.predictors.checkpoint import require_sound
from ripieno.tasks import read_folder
from ripieno.testing import FixedClock, Reply, check_learner
from ripieno.testing.conformance import make_training_data

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "write-a-predictor.md"
STILL = "[route]\nexploration = 0.0\n"
BREAKS = '''

from dataclasses import replace
from pathlib import Path


class Moody(Nearest):
    """Predicts as it is told by a file of the working folder."""

    def vectors(self, features):
        is_odd = Path("mood").exists() and Path("mood").read_text() == "vectors"
        return super().vectors(features) * (np.nan if is_odd else 1.0)

    def predict(self, z, features):
        found = super().predict(z, features)
        mood = Path("mood").read_text() if Path("mood").exists() else ""
        if mood == "raise":
            raise RuntimeError("no mood to predict")
        if mood == "nan":
            found.quality[:] = np.nan
        if mood == "lengths":
            return replace(found, output_tokens=np.ones(9))
        if mood == "wide":
            return Predictions(**dict.fromkeys(("quality", "quality_sd", "cost_usd", "latency_s"), np.ones((9, 9))))
        return found


predictor = Plugin(NoOptions, lambda options: Moody())
'''


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of the page as an installed package, with a mood."""
    install_example(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "nearest", raising=False)


def install_example(folder: Path) -> None:
    code = re.search(r"<!-- file: nearest.py -->\n```python\n(.+?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    info = folder / "nearest-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "nearest.py").write_text(code[1] + BREAKS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nearest\nVersion: 1.0\n")
    names = "nearest = nearest:predictor\nbad/name = nearest:predictor\n"
    (info / "entry_points.txt").write_text(f"[ripieno.predictors]\n{names}")


async def save_plugin(app: Installation, folder: Path) -> str:
    data = read_folder(folder)
    features = await analyze_prompts(app.analyzer, data)
    recipe = Recipe(kind="nearest")
    trained = train(data, features, recipe=recipe, schema=app.analyzer.schema, clock=FixedClock())
    return app.registry.save(trained.checkpoint, trained.card)


def test_the_example_of_the_page_passes_its_kit_and_broken_ones_do_not() -> None:
    check_learner(lambda: make_learner("nearest"))
    broken = (("nan", "quality must be in"), ("wide", "must have shape"), ("vectors", "a vector is not finite"))
    for mood, clause in broken:
        Path("mood").write_text(mood)
        with pytest.raises(AssertionError, match=clause):
            check_learner(lambda: make_learner("nearest"))
    with pytest.raises(ConfigError, match="cannot be called 'bad/name'"):
        make_learner("bad/name")


@pytest.mark.parametrize("kind", ["ridge", "heads"])
def test_built_in_learners_pass_the_kit_of_plugins(kind: str) -> None:
    check_learner(lambda: make_learner(kind))


@pytest.mark.parametrize(
    ("field", "value", "clause"),
    [
        ("quality", -0.1, "quality must be in"),
        ("quality_sd", np.nan, "quality_sd must be finite"),
        ("cost_usd", -1.0, "cost_usd must not be negative"),
        ("latency_s", np.inf, "latency_s must not be negative"),
        ("latency_log_sd", 0.5, "latency_log_sd must have shape"),
        ("latency_tails", 0.5, "latency_tails must have shape"),
    ],
)
def test_invalid_predictions_are_refused(field: str, value: float, clause: str) -> None:
    data = make_training_data()
    learner: Learner = make_learner("nearest")
    learner.fit(data, rng=np.random.default_rng(0))
    found = learner.predict(learner.vectors(data.features), data.features)
    require_sound(found, (40, 2))
    with pytest.raises(ValueError, match=clause):
        require_sound(replace(found, **{field: np.full((40, 2), value)}), (40, 2))  # type: ignore[arg-type]  # a matrix
    with pytest.raises(ValueError, match="verify must have shape"):
        require_sound(replace(found, advice={"verify": np.zeros(3)}), (40, 2))


async def test_a_plugin_learns_from_outcomes_and_survives_the_process(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve(), serve(), extra=STILL)
    async with open_app() as app:
        version = await save_plugin(app, make_outcomes(tmp_path / "set"))
        app.registry.promote(version)
        first, _ = await app.runtime.orchestrator.run(TASK)
        assert (first.predictor, first.worker) == (version, "b")
        assert first.estimates[1].cost_usd == pytest.approx(0.002), "the price list stands in for unknown costs"
        for _ in range(40):
            decision, _ = await app.runtime.orchestrator.run(TASK)
            await record_feedback(app, decision.id, Verdict(verifier="user", quality=float(decision.worker == "a")))
        last = await app.runtime.orchestrator.decide(TASK)
        assert last.worker == "a", "an answer that is never accepted is asked for no longer"
        assert (await app.replays.replay(app.ledger.decisions.find(decision.id), app.runtime.pool)).differs == ()
    async with open_app() as again:
        assert (await again.runtime.orchestrator.decide(TASK)).estimates == last.estimates


async def test_a_new_worker_is_probed_against_a_plugin_and_shown(serve: Serve, tmp_path: Path) -> None:
    wrong, right = serve([Reply(text="no")]), serve([Reply(text="no")])
    write_pool(wrong, right, serve([Reply(text="yes")]), extra=STILL)
    async with open_app() as app, browsing(app) as browser:
        app.registry.promote(await save_plugin(app, make_outcomes(tmp_path / "set")))
        tasks = tuple(
            GradedTask(id=f"t{i}", task=Task.from_text(f"question {i} about rice"), grader=Exact(answers=("yes",)),
                       family="f")
            for i in range(40)
        )  # fmt: skip
        probing = Probing(worker=app.runtime.pool["c"].id, tasks=tasks, budget=12)
        found = await make_prober(app).run(probing, app.runtime.pool, known=set())
        assert (found.probes, found.standing) == (12, "trial")
        assert found.quality > 0.6
        pool, policies = await browser.read("pool"), await browser.get("policies")
        assert "trial" in pool
        assert app.registry.versions()[0] in policies
        Path("mood").write_text("nan")
        with pytest.raises(PredictorError, match="'nearest'"):
            await make_prober(app).run(replace(probing, budget=20), app.runtime.pool, known=set())
        assert len(app.ledger.campaigns.run_ids("probe:c")) == 12, "no probe is paid for that teaches nothing"


@pytest.mark.parametrize("mood", ["raise", "nan", "wide", "lengths", "vectors"])
async def test_a_plugin_that_breaks_leaves_requests_to_the_worker_cards(
    serve: Serve, tmp_path: Path, mood: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_pool(serve(), serve(), extra=f"{STILL}preference = 1.0\n")
    async with open_app() as app:
        version = await save_plugin(app, make_outcomes(tmp_path / "set"))
        app.registry.promote(version)
        decided, _ = await app.runtime.orchestrator.run(TASK)
        assert decided.predictor == version
        Path("mood").write_text(mood)
        fallen, answered = await app.runtime.orchestrator.run(TASK)
        assert (fallen.predictor, fallen.worker) == ("prior", "a")
        assert answered.answer is not None
        assert answered.answer.text == "ok"
        assert any("'nearest'" in reason and version in reason for reason in fallen.reasons)
        assert not any(estimate.is_measured for estimate in fallen.estimates)
        assert (await app.replays.replay(app.ledger.decisions.find(fallen.id), app.runtime.pool)).differs == ()
        await record_feedback(app, decided.id, Verdict(verifier="user", quality=0.0))
        estimator = app.runtime.routing.router.estimator
        assert estimator is not None
        assert (estimator.state.folded, estimator.state.watermark) == (0, 0), "nothing is half applied"
        await app.runtime.orchestrator.run(TASK)
        told = [text for text in caplog.messages if text.startswith("worker cards decide")]
        assert len(told) == 1, "the log says it once"
    async with open_app() as again:
        assert (await again.runtime.orchestrator.decide(TASK)).predictor == "prior", "a start does not fail by it"
        Path("mood").unlink()
        await again.catch_up()
        later = await again.runtime.orchestrator.decide(TASK)
        assert later.predictor.startswith(f"{version}+"), "what waited in the ledger is learned"
        assert not any("cards decide" in reason for reason in later.reasons)


async def test_a_canary_that_breaks_is_rolled_back(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve(), serve(), extra=STILL)
    async with open_app() as app:
        incumbent = await save_checkpoint(app, make_outcomes(tmp_path / "set"))
        app.registry.promote(incumbent)
        candidate = await save_plugin(app, make_outcomes(tmp_path / "other"))
        app.registry.set_canary(start_canary(app.registry, app.ledger, candidate).model_copy(update={"share": 1.0}))
        assert (await app.runtime.orchestrator.decide(TASK)).predictor == candidate
        await app.catch_up()
        assert app.registry.canary() is not None
        Path("mood").write_text("nan")
        assert (await app.runtime.orchestrator.decide(TASK)).predictor == "prior"
        await app.catch_up()
        assert app.registry.canary() is None
        assert "'nearest'" in str(app.registry.quarantined(candidate))
        staged = [s.entry for s in app.ledger.read(kinds=("staged",))]
        assert [(e.stage, e.passed) for e in staged if isinstance(e, Staged)] == [("canary", False)]
        assert (await app.runtime.orchestrator.decide(TASK)).predictor == incumbent


async def test_outcomes_that_a_canary_cannot_learn_end_it_too(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve(), serve(), extra=STILL)
    async with open_app() as app:
        app.registry.promote(await save_checkpoint(app, make_outcomes(tmp_path / "set")))
        candidate = await save_plugin(app, make_outcomes(tmp_path / "other"))
        _, run = await app.runtime.orchestrator.run(TASK)
        start_canary(app.registry, app.ledger, candidate)
        Path("mood").write_text("raise")
        call = run.calls[0]
        await app.ledger.append(
            Executed(run=replace(run, id="r1", decision=None, calls=(call,))),
            Judged(run="r1", verdict=Verdict(verifier="user", quality=1.0)),
        )
        await app.catch_up()
        assert app.registry.canary() is None
        assert "no mood to predict" in str(app.registry.quarantined(candidate))


async def test_a_plugin_that_breaks_in_training_saves_nothing(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve(), serve())
    async with open_app() as app:
        for mood, said in (
            ("raise", "no mood to predict"),
            ("nan", "quality must be in"),
            ("wide", "shape"),
            ("vectors", "ValueError"),
        ):
            Path("mood").write_text(mood)
            with pytest.raises(PredictorError, match=said) as caught:
                await save_plugin(app, make_outcomes(tmp_path / mood))
            assert (caught.value.predictor, caught.value.checkpoint) == ("nearest", "untrained-nearest")
        assert app.registry.versions() == []


async def test_a_checkpoint_of_a_plugin_that_left_is_refused_by_name(serve: Serve, tmp_path: Path) -> None:
    write_pool(serve(), serve())
    async with open_app() as app:
        version = await save_plugin(app, make_outcomes(tmp_path / "set"))
        (tmp_path / "site" / "nearest-1.0.dist-info" / "entry_points.txt").write_text("")
        with pytest.raises(CheckpointError, match="unknown kind 'nearest'") as caught:
            app.registry.load(version, schema=app.analyzer.schema)
        assert "ripieno.predictors" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="no plugin"):
        load_plugin("ripieno.predictors", "nearest")
    assert json.loads((tmp_path / ".ripieno" / "checkpoints" / version / "card.json").read_text())["kind"] == "nearest"
    Installation(load_settings())
