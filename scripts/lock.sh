#!/bin/sh
# Pin every dependency with its hashes. Needs uv; writes no address of any registry.
set -eu
cd "$(dirname "$0")/.."
compile() { # output, arguments...
    out=$1
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-emit-find-links --no-header --no-annotate --no-strip-extras --output-file "requirements/$out" "$@"
}
compile run.txt pyproject.toml --extra local
compile dev.txt pyproject.toml requirements/dev.in --extra local --extra onnx --extra tasks --extra boosting \
    --extra postgres --extra redis --extra otel --extra mcp
