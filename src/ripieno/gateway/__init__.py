"""HTTP: OpenAI-compatible wire to Task and Run; auth, streaming, the error table."""

from ripieno.gateway.serve import bind_socket, running, serve_forever

__all__ = ["bind_socket", "running", "serve_forever"]
