"""Text to vectors: the static default, ONNX sentence transformers, any `/v1/embeddings` address."""

from ripieno.encoders.base import CachedEncoder, Encoder, clip_text

__all__ = ["CachedEncoder", "Encoder", "clip_text"]
