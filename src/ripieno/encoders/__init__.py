"""Text to vectors: the static default, ONNX sentence transformers, any `/v1/embeddings` address."""

import kitoken  # noqa: F401  # its allocator fails once the thread that imported it has ended, so the main thread does

from ripieno.encoders.base import CachedEncoder, Encoder, GuardedEncoder, clip_text, encode_within, find_privacy

__all__ = ["CachedEncoder", "Encoder", "GuardedEncoder", "clip_text", "encode_within", "find_privacy"]
