"""The child process of `llama`: a llama.cpp server on loopback with its own key, until its stdin closes."""

import json
import os
import secrets
import sys


def main() -> None:
    """Serve the model that the argument describes. Print address and key in one line."""
    import xllamacpp

    options = json.loads(sys.argv[1])
    key = secrets.token_urlsafe(24)
    params = xllamacpp.CommonParams()
    params.model.path = options["path"]
    params.n_parallel = options["parallel"]
    params.n_ctx = options["context"] * options["parallel"]
    params.cpuparams.n_threads = options["threads"]
    params.cpuparams_batch.n_threads = options["threads"]
    params.api_keys = [key]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.ui = False
    params.verbosity = 0
    if options.get("pooling"):
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type[f"LLAMA_POOLING_TYPE_{options['pooling'].upper()}"]
    saved = os.dup(1)
    os.dup2(2, 1)
    server = xllamacpp.Server(params)
    os.write(saved, json.dumps({"address": server.listening_address, "key": key}).encode() + b"\n")
    os.close(saved)
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
