#!/bin/sh
# Pin every dependency with its hashes, for every Python from 3.11 on. Needs uv (`pip install uv`), from PATH or as UV=...
# It writes no address of any registry. Folders of wheels for pip (PIP_FIND_LINKS) are read by uv, too.
set -eu
cd "$(dirname "$0")/.."
UV=${UV:-uv}
compile() { # output, arguments...
    out=$1
    shift
    "$UV" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} \
        --no-emit-find-links --no-header --no-annotate --no-strip-extras --output-file "requirements/$out" "$@"
}
# What `make demo` needs: the core, the demo's workers and training, the local model, the conductor's training.
compile run.txt pyproject.toml --extra demo --extra train --extra local --extra conductor
# What `make test` needs: every extra but `lm`, and the tools.
compile dev.txt pyproject.toml requirements/dev.in --extra all
