"""A language model as encoder, through transformers: the last token's state of `Qwen/Qwen3-0.6B` or any other."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ripieno.domain import Vector
from ripieno.encoders.base import clip_text, normalise_rows
from ripieno.errors import ConfigError
from ripieno.plugins import needs_extra

if TYPE_CHECKING:
    import torch

CHARACTERS = 8000


class CausalOptions(BaseModel):
    """Options of `encoder.name = "causal"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "Qwen/Qwen3-0.6B"
    """A name on the hub, or a folder."""
    gguf_file: str | None = None
    """Name of a GGUF file in that folder, if it contains one."""
    tokens: int = Field(default=512, ge=8)
    """Most tokens of a text. The end of a longer text is kept."""
    layer: int = -1
    """Layer whose states are used: -1 is the last layer, -2 the one before."""
    pooling: Literal["last", "mean"] = "last"
    device: str = "auto"
    """A torch device. `auto` uses a GPU if there is one."""


class CausalEncoder:
    """Loads the model on creation. Its weights never change.

    Raises:
        ConfigError: torch or transformers is not installed, or the model cannot be loaded.
    """

    def __init__(self, options: CausalOptions) -> None:
        with needs_extra("lm", "the encoder 'causal'", key="encoder.name"):
            import torch
            import transformers
        self._options = options
        kind = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._device = kind if options.device == "auto" else torch.device(options.device)
        given = {"gguf_file": options.gguf_file} if options.gguf_file else {}
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(options.model, **given)
            dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
            model = transformers.AutoModel.from_pretrained(options.model, dtype=dtype, **given)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the model {options.model!r} cannot be loaded: {error}", key="encoder.options.model"
            ) from error
        self._model = model.to(self._device).eval()
        self._tokenizer.truncation_side = "left"
        self.dimensions = int(self._model.config.hidden_size)
        self.name = f"causal-{options.model.rsplit('/', 1)[-1]}-{options.pooling}{options.layer}-{self.dimensions}"

    async def encode(self, texts: Sequence[str]) -> Vector:
        """Encode texts in a worker thread, shape (len(texts), dimensions)."""
        return await asyncio.to_thread(self._encode, [clip_text(text, limit=CHARACTERS) for text in texts])

    async def close(self) -> None:
        """Do nothing: the model ends with the process."""

    def _encode(self, texts: Sequence[str]) -> Vector:
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for index, text in enumerate(texts):  # one by one: padding would move the last token
            if text.strip():
                rows[index] = self._pool(text).float().cpu().numpy()
        return normalise_rows(rows)

    def _pool(self, text: str) -> "torch.Tensor":
        import torch

        inputs = self._tokenizer(text, return_tensors="pt", truncation=True, max_length=self._options.tokens)
        with torch.inference_mode():
            found = self._model(
                input_ids=inputs["input_ids"].to(self._device),
                attention_mask=inputs["attention_mask"].to(self._device),
                output_hidden_states=True,
            )
        states = found.hidden_states[self._options.layer][0]  # (tokens, d)
        pooled: torch.Tensor = states[-1] if self._options.pooling == "last" else states.mean(dim=0)
        return pooled
