"""`ripieno serve` makes one admin key at its first start, shows it once, and accepts it from then on."""

import json
import re
from itertools import count
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from tests.faults.conftest import Served, ServeIn, serve_in

__all__ = ["serve_in"]  # a fixture, used by name

POOL = """
[ledger]
url = "sqlite:///ledger.db"
[providers.far]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
[workers.far]
provider = "far"
"""


NUMBERS = count()


def make_key(served: Served, key: str | None) -> int:
    """Ask for a new virtual key; gives the status."""
    headers = {"content-type": "application/json"} | ({"authorization": f"bearer {key}"} if key else {})
    body = json.dumps({"name": f"new {next(NUMBERS)}"}).encode()
    try:
        with urlopen(Request(f"{served.address}/admin/keys", body, headers), timeout=60) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


def stop(served: Served) -> str:
    """End a gateway; gives what it said to its user."""
    served.process.terminate()
    return served.process.communicate()[1]


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "two processes"])
def test_the_key_is_made_shown_once_and_accepted_from_then_on(
    serve_in: ServeIn, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "ripieno.toml").write_text(POOL)
    served = serve_in(tmp_path, *options)
    path = tmp_path / ".ripieno" / "admin.key"
    assert path.stat().st_mode & 0o777 == 0o600
    secret = path.read_text().strip()
    assert [make_key(served, None), make_key(served, "none"), make_key(served, "rp-x")] == [401] * 3
    assert {make_key(served, secret) for _ in range(6)} == {201}
    said = stop(served)
    assert said.count(secret) == 1
    assert str(path.relative_to(tmp_path)) in said
    served = serve_in(tmp_path, *options)
    assert make_key(served, secret) == 201
    said = stop(served)
    assert secret not in said, "not shown again"
    assert "admin.key" in said


def test_with_a_master_key_no_admin_key_is_made(serve_in: ServeIn, tmp_path: Path) -> None:
    (tmp_path / "ripieno.toml").write_text(POOL)
    served = serve_in(tmp_path, environment={"RIPIENO_GATEWAY__API_KEY": "the-master-key"})
    assert make_key(served, "the-master-key") == 201
    assert not (tmp_path / ".ripieno" / "admin.key").exists()
    assert "the-master-key" not in stop(served)


def test_a_start_without_a_place_for_the_key_says_so(serve_in: ServeIn, tmp_path: Path) -> None:
    (tmp_path / "ripieno.toml").write_text(POOL)
    (tmp_path / ".ripieno" / "admin.key").mkdir(parents=True)
    with pytest.raises(AssertionError) as caught:
        serve_in(tmp_path)
    said = str(caught.value)
    assert "error: the admin key" in said
    assert re.search("hint: .*RIPIENO_GATEWAY__API_KEY", said)
