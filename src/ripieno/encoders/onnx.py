"""A sentence transformer as an ONNX file (all-MiniLM-L6-v2 in int8: 8 ms for 48 tokens), without torch."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ripieno.domain import Vector
from ripieno.encoders.base import clip_text, normalise_rows
from ripieno.errors import ConfigError
from ripieno.plugins import needs_extra

MAX_TOKENS = 256
CHARACTERS = 2000


class OnnxEncoder:
    """Mean-pooled token states of a BERT-shaped model: `model.onnx` (or `model_int8.onnx`) beside `tokenizer.json`.

    Raises:
        ConfigError: the folder lacks one of the files, or onnxruntime is not installed.
    """

    def __init__(self, folder: Path) -> None:
        models = sorted(folder.glob("**/*.onnx"))
        tokenizers = sorted(folder.glob("**/tokenizer.json"))
        if not models or not tokenizers:
            missing = "*.onnx" if not models else "tokenizer.json"
            raise ConfigError(
                f"the ONNX encoder's folder {str(folder)!r} has no {missing}",
                key="encoder.folder",
                hint="run `make minilm`, or point encoder.folder at a folder with model.onnx and tokenizer.json",
            )
        with needs_extra("onnx", "the encoder 'onnx'", key="encoder.name"):
            import onnxruntime
            from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(models[0]), options, providers=["CPUExecutionProvider"])
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._tokenizer = Tokenizer.from_file(str(tokenizers[0]))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self.dimensions = int(self._session.get_outputs()[0].shape[-1])
        self.name = f"onnx-{models[0].stem}-{self.dimensions}"

    async def encode(self, texts: Sequence[str]) -> Vector:
        """Encode texts in a worker thread, shape (len(texts), dimensions)."""
        return await asyncio.to_thread(self._encode, [clip_text(text, limit=CHARACTERS) for text in texts])

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def _encode(self, texts: Sequence[str]) -> Vector:
        rows = [self._encode_one(text) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, self.dimensions), dtype=np.float32)

    def _encode_one(self, text: str) -> Vector:
        """Encode one text alone. In a batch, int8 scales would make it depend on its neighbours."""
        encoding = self._tokenizer.encode(text)
        attention = np.array([encoding.attention_mask], dtype=np.int64)
        ids = np.array([encoding.ids], dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": attention, "token_type_ids": np.zeros_like(ids)}
        states = self._session.run(None, {name: feed[name] for name in self._inputs})[0]  # (1, tokens, d)
        mask = attention[:, :, None].astype(np.float32)
        return np.asarray(normalise_rows((states * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1.0))[0])
