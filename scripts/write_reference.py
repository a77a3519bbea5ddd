#!/usr/bin/env python3
"""Write docs/reference/commands.md, settings.md and wires.md from the commands, settings and tables themselves."""

import ast
import inspect
from pathlib import Path

import click
from pydantic import BaseModel

from ripieno import config
from ripieno.cli.main import COMMANDS, LazyGroup, cli
from ripieno.config.reload import RELOADABLE
from ripieno.config.scale import FORMER
from ripieno.wires.carries import TABLE, Feature

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"


def render_commands() -> str:
    """Help of every command, groups with their members."""
    assert isinstance(cli, LazyGroup)
    parts = [
        "# Commands",
        "",
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 wrong setup, 4 provider out of reach, 5 a gate said no.",
    ]
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        parts += ["", f"## ripieno {name}", "", "```text", _help(command, f"ripieno {name}"), "```"]
        if isinstance(command, click.Group):
            for member in command.list_commands(click.Context(command)):
                inner = command.get_command(click.Context(command), member)
                assert inner is not None
                parts += ["", f"### {name} {member}", "", "```text", _help(inner, f"ripieno {name} {member}"), "```"]
    return "\n".join(parts) + "\n"


def render_settings() -> str:
    """Every key with type, default and docstring."""
    rows = [
        "# Settings",
        "",
        "Defaults < `ripieno.toml` < `RIPIENO_*` variables (`RIPIENO_ROUTE__PRESET`) < flags.",
        "",
        "A running process takes a changed file as a whole: keys marked `at once` apply from the next request on.",
        "If a key marked `restart` differs, it refuses the whole file, and names the key; see",
        "[Change without stopping](../how-to/operate.md#change-without-stopping).",
        "",
    ]
    rows += ["| key | type | default | applies | meaning |", "| --- | --- | --- | --- | --- |"]
    rows += _rows(config.Settings, "")
    for model, prefix in ((config.ProviderSettings, "providers.NAME."), (config.WorkerSettings, "workers.ID.")):
        rows += _rows(model, prefix)
    return "\n".join(rows) + "\n"


WIRES = """# Wire formats

A client speaks one format, and a worker may speak another. The table states how a worker of each format gets what a
client of another format sends. A worker of the client's own format gets the request as the client sent it, but for the
model, the key, and what a policy changes.

- `whole`: the worker gets it in its own form.
- `in another form`: it gets the content, such as a picture behind the tool's result, or a failure in words.
- `lost`: there is no form. If another eligible worker has one, it is preferred (reason `cannot_carry` of the mask). If
  none has, the answer's header `x-ripieno-lost` and the record name it.

Settings of sampling (`stop`, `seed`, `top_k`, penalties, `effort`, `verbosity`) and cache marks do not decide which
worker is eligible.
Reasoning goes back to the worker that gave it, and to no other.

`tests/integration/test_matrix.py` sends one request of each client's format to a worker of each format, whole and
streamed, and compares what arrives with this table.
"""


def render_wires() -> str:
    """Table of what each wire format carries."""
    rows = [WIRES, f"| | {' | '.join(NAMES[wire] for wire in TABLE)} |", f"| --- |{' --- |' * len(TABLE)}"]
    carried = {feature: " | ".join(TABLE[wire][feature].value for wire in TABLE) for feature in Feature}
    rows += [f"| {feature.value} | {columns} |" for feature, columns in carried.items()]
    return "\n".join(rows) + "\n"


NAMES = {
    "chat": "`openai` (chat completions)",
    "messages": "`anthropic` (messages)",
    "responses": "`openai-responses`",
    "gemini": "`gemini`",
}
"""Kinds of providers, by wire format."""


def _help(command: click.Command, name: str) -> str:
    with click.Context(command, info_name=name, max_content_width=100) as context:
        return command.get_help(context)


def _rows(model: type[BaseModel], prefix: str) -> list[str]:
    docs = _attribute_docs(model)
    rows = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if f"{prefix}{name}" in FORMER:
            continue  # `scale` sets it
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            rows += _rows(kind, f"{prefix}{name}.")
            continue
        shown = kind.__name__ if isinstance(kind, type) else str(kind).replace("pathlib.", "").replace("typing.", "")
        default = "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)!r}`"
        applies = "at once" if {f"{prefix}{name}", prefix.partition(".")[0]} & RELOADABLE else "restart"
        about = " ".join(docs.get(name, "").split())
        rows.append(f"| `{prefix}{name}` | {shown.replace('|', 'or')} | {default} | {applies} | {about} |")
    return rows


def _attribute_docs(model: type[BaseModel]) -> dict[str, str]:
    body = ast.parse(inspect.getsource(model).strip()).body[0]
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for field, doc in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            docs[field.target.id] = str(doc.value.value)
    return docs


if __name__ == "__main__":
    (REFERENCE / "commands.md").write_text(render_commands(), encoding="utf-8")
    (REFERENCE / "settings.md").write_text(render_settings(), encoding="utf-8")
    (REFERENCE / "wires.md").write_text(render_wires(), encoding="utf-8")
