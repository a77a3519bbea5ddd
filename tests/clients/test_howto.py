"""Every block of `docs/how-to/clients.md` runs as it stands, but for the address."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "clients.md").read_text()
BLOCKS = dict(re.findall(r"^## (.+?)\n\n```python\n(.+?)```", PAGE, flags=re.MULTILINE | re.DOTALL))


def test_the_page_has_its_blocks() -> None:
    assert len(BLOCKS) == 5
    assert all(len(block.strip().splitlines()) <= 6 for block in BLOCKS.values())


@pytest.mark.parametrize("client", BLOCKS)
def test_a_block_runs(
    client: str, gateway: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    code = compile(BLOCKS[client].replace("http://127.0.0.1:4141", gateway), client, "exec")
    exec(code, {})
    assert capsys.readouterr().out.strip()
