"""HTTP: OpenAI-compatible wire to Task and Run; auth, streaming, the error table."""

from ripieno.gateway.admin_key import AdminKey, load_admin_key
from ripieno.gateway.serve import bind_socket, running, serve_forever

__all__ = ["AdminKey", "bind_socket", "load_admin_key", "running", "serve_forever"]
