"""Every block of `docs/how-to/clients.md` runs as it stands, but for the address."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import HANG_S

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "clients.md").read_text()
BLOCKS = dict(re.findall(r"^## (.+?)\n\n```python\n(.+?)```", PAGE, flags=re.MULTILINE | re.DOTALL))


def test_the_page_has_its_blocks() -> None:
    assert len(BLOCKS) == 5
    assert all(len(block.strip().splitlines()) <= 6 for block in BLOCKS.values())


@pytest.mark.parametrize("client", BLOCKS)
def test_a_block_runs(client: str, gateway: str) -> None:
    """In a process of its own, as its reader runs it: what the client leaves behind ends with it."""
    code = BLOCKS[client].replace("http://127.0.0.1:4141", gateway)
    environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "COVERAGE_PROCESS_START": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, timeout=HANG_S
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
