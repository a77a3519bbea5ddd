"""HTTP: OpenAI-compatible wire to Task and Run; auth, streaming, the error table."""

from ripieno.gateway.serve import bind_socket, running, serve_forever
from ripieno.gateway.server import record_feedback

__all__ = ["bind_socket", "record_feedback", "running", "serve_forever"]
