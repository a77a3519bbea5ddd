"""Publishing: writes a data set or a checkpoint as a folder in the layout of Hugging Face, with a README."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ripieno.domain.training import column_means
from ripieno.errors import ConfigError
from ripieno.learn.checkpoint import CARD, WEIGHTS, read_card, render_card
from ripieno.learn.screening import require_clean_text
from ripieno.privacy import Scanner
from ripieno.tasks import RoutingData, write_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = ("prompts", "outcomes", "models")


def publish_dataset(data: RoutingData, folder: Path, *, licence: str, sources: Mapping[str, str]) -> Path:
    """Write a data set: three files and a README with YAML front matter and a table of licences.

    The licences are SPDX identifiers, such as `apache-2.0`.

    Raises:
        ConfigError: a source has no licence, or the folder is not empty.
    """
    named = sorted({prompt.source for prompt in data.prompts})
    missing = [source for source in named if source not in sources]
    if missing:
        raise ConfigError(
            f"the source {missing[0]!r} of {data.name!r} has no licence",
            key="licence",
            hint=f"state its licence: --source {missing[0]}=apache-2.0",
        )
    with _whole(folder) as scratch:
        form = write_folder(data, scratch)
        page = _render_dataset(data, form, licence=licence, sources={name: sources[name] for name in named})
        (scratch / "README.md").write_text(page, encoding="utf-8")
    return folder


def publish_checkpoint(checkpoint: Path, folder: Path, *, licence: str, scanner: Scanner | None = None) -> Path:
    """Write a checkpoint: weights as safetensors, its card as JSON, and a README with YAML front matter.

    The licence is an SPDX identifier. Without a scanner, the card is not searched for secrets and personal data.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        ConfigError: the folder is not empty.
        GateRefused: the card contains secrets or personal data.
    """
    card = read_card(checkpoint)
    if scanner is not None:
        require_clean_text(f"the card of {checkpoint.name!r}", (checkpoint / CARD).read_text(encoding="utf-8"), scanner)
    front = [
        "---",
        f"license: {licence}",
        "library_name: ripieno",
        "pipeline_tag: text-classification",
        "tags:",
        *(f"- {tag}" for tag in ("llm-routing", card.kind, card.encoder)),
        "---",
        "",
    ]
    with _whole(folder) as scratch:
        shutil.copyfile(checkpoint / WEIGHTS, scratch / WEIGHTS)
        shutil.copyfile(checkpoint / CARD, scratch / CARD)
        use = [
            "## Use",
            "",
            f"Put this folder under `checkpoints/{checkpoint.name}` where the pool has these workers, then:",
            "",
            "```",
            f"ripieno policy promote {checkpoint.name}",
            "```",
            "",
        ]
        text = "\n".join(front) + render_card(checkpoint.name, card) + "\n" + "\n".join(use)
        (scratch / "README.md").write_text(text, encoding="utf-8")
    return folder


def _render_dataset(data: RoutingData, form: str, *, licence: str, sources: Mapping[str, str]) -> str:
    train, test = len(data.split_rows("train")), len(data.split_rows("test"))
    quality = data.matrix(data.quality)
    prices = [(_number(model.price_in), _number(model.price_out)) for model in data.models]
    means = [_number(value) for value in column_means(quality)]
    rows = [
        f"| `{model.id}` | {mean} | {' | '.join(price)} |"
        for model, mean, price in zip(data.models, means, prices, strict=True)
    ]
    counts = f"{len(data.models)} models on {len(data.prompts)} prompts ({train} to learn from, {test} held out)"
    configs = [line for name in FILES for line in (f"- config_name: {name}", f"  data_files: {name}.{form}")]
    lines: Sequence[str] = (
        "---",
        f"license: {licence}",
        f"pretty_name: {_escape(data.name)}",
        "tags:",
        "- llm-routing",
        f"size_categories: {_size(len(data.quality))}",
        "configs:",
        *configs,
        "---",
        "",
        f"# {_escape(data.name)}",
        "",
        f"Outcomes of {counts}: {len(data.quality)} rows of measured quality, with cost and latency where known.",
        "",
        f"- `prompts.{form}`: prompt_id, prompt, task, source, split",
        f"- `outcomes.{form}`: prompt_id, model_id, quality in [0, 1], cost_usd, latency_s, tokens",
        f"- `models.{form}`: model_id, price_in, price_out (USD per million tokens), context_window, description",
        "",
        "Splits are by prompt. Train and prove a router on it: `ripieno evaluate --data .`",
        "",
        "## Models",
        "",
        "| model | mean quality | price in | price out |",
        "| --- | ---: | ---: | ---: |",
        *rows,
        "",
        "## Licences",
        "",
        "| source | licence |",
        "| --- | --- |",
        *(f"| {_escape(name)} | {_escape(terms)} |" for name, terms in sources.items()),
        "",
    )
    return "\n".join(lines)


@contextmanager
def _whole(folder: Path) -> "Iterator[Path]":
    """Yield a scratch folder that becomes `folder` at the end, or vanishes after an error."""
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"the folder {str(folder)!r} is not empty", key="folder", hint="name a new one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".publishing-", dir=folder.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _size(rows: int) -> str:
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for bound, name in bounds if rows < bound), "1M<n<10M")


def _number(value: float | None) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.4g}"


def _escape(text: str) -> str:
    """Escape a text for a cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
