"""The child process of `llama`: a llama.cpp server on loopback, with a key of its own, until its stdin closes."""

import json
import os
import secrets
import sys


def main() -> None:
    """Serve the model that the argument describes; tell address and key in one line."""
    import xllamacpp

    wanted = json.loads(sys.argv[1])
    key = secrets.token_urlsafe(24)
    params = xllamacpp.CommonParams()
    params.model.path = wanted["path"]
    params.n_parallel = wanted["parallel"]
    params.n_ctx = wanted["context"] * wanted["parallel"]
    params.cpuparams.n_threads = wanted["threads"]
    params.cpuparams_batch.n_threads = wanted["threads"]
    params.api_keys = [key]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.ui = False
    params.verbosity = 0
    if wanted.get("pooling"):
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type[f"LLAMA_POOLING_TYPE_{wanted['pooling'].upper()}"]
    saved = os.dup(1)
    os.dup2(2, 1)
    server = xllamacpp.Server(params)
    os.write(saved, json.dumps({"address": server.listening_address, "key": key}).encode() + b"\n")
    os.close(saved)
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
