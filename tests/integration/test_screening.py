"""Exported data sets and checkpoints: refused or redacted, with counts and places, and never with the text."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ripieno.cli.main import cli
from ripieno.errors import GateRefused
from ripieno.learn.screening import require_clean, require_clean_text, screen_data
from ripieno.ledger import Ledger, import_data
from ripieno.privacy import make_scanner
from ripieno.privacy.unpack import read_text
from ripieno.tasks import Model, Prompt, RoutingData, read_folder, write_folder

SCANNER = make_scanner(region="US")
SECRET = "hunter22-is-it"  # planted


def make_data(*texts: str) -> RoutingData:
    prompts = tuple(
        Prompt(id=f"p{row}", text=text, kind="k", source="here", split="train") for row, text in enumerate(texts)
    )
    rows = np.arange(len(texts))
    empty = np.full(len(texts), np.nan)
    return RoutingData(
        name="set",
        prompts=prompts,
        models=(Model(id="m"),),
        prompt_index=rows,
        model_index=np.zeros_like(rows),
        quality=np.ones(len(texts)),
        cost_usd=empty,
        latency_s=empty,
        input_tokens=empty,
        output_tokens=empty,
    )


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, standalone_mode=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a data set in a folder and in the ledger, with findings in two of its three prompts."""
    data = make_data("What is rice?", f"the password is {SECRET}", "write to jane@example.org, or joe@example.org")
    write_folder(data, tmp_path / "set")
    Path("ripieno.toml").write_text("[ledger]\nurl = 'sqlite:///ledger.db'\n")
    with Ledger("sqlite:///ledger.db") as record:
        import_data(record, data)
    return tmp_path / "set"


def test_a_data_set_with_secrets_is_refused_with_counts_and_places(folder: Path) -> None:
    done = call("publish", "out", "--data", str(folder), "--licence", "mit", "--source", "here=mit")
    assert isinstance(done.exception, GateRefused)
    assert done.exception.message == (
        "'set' holds 2 x e-mail address, 1 x password in 2 places: prompt 'p1', prompt 'p2'"
    )
    assert not Path("out").exists()
    assert SECRET not in f"{done.output}{done.exception}"


@pytest.mark.parametrize("command", ["publish", "export"])
def test_redacted_data_has_no_findings_and_counts_them(folder: Path, command: str) -> None:
    arguments = {
        "publish": ("publish", "out", "--data", str(folder), "--licence", "mit", "--source", "here=mit"),
        "export": ("ledger", "export", "out", "--dataset", "set"),
    }[command]
    done = call(*arguments, "--redact")
    assert done.exception is None, done.exception
    assert "replaced in 2 places: 2 x e-mail address, 1 x password" in done.output + done.stderr
    texts = {prompt.text for prompt in read_folder(Path("out")).prompts}
    assert texts == {
        "What is rice?",
        "the password is [secret removed]",
        "write to [personal data removed], or [personal data removed]",
    }


def test_an_export_is_refused_or_written_as_it_is(folder: Path) -> None:
    refused = call("ledger", "export", "out", "--dataset", "set")
    assert isinstance(refused.exception, GateRefused)
    assert not Path("out").exists()
    assert call("ledger", "export", "out", "--dataset", "set", "--as-is").exception is None
    assert any(SECRET in prompt.text for prompt in read_folder(Path("out")).prompts)
    for arguments in (("ledger", "export", "o", "--dataset", "set"), ("publish", "o", "--licence", "mit")):
        assert "one of --redact and --as-is" in str(call(*arguments, "--redact", "--as-is").exception)
    assert folder.exists()


def test_a_data_set_without_findings_stays_unchanged() -> None:
    data = make_data("What is rice?", "Sum 1, 2 and 3.")
    screened = screen_data(data, SCANNER)
    assert screened.data.prompts == data.prompts
    require_clean(screened)


def test_tools_and_descriptions_of_models_are_read_as_well() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "write to jane@example.org"}}
    data = make_data("What is rice?")
    data = replace(
        data,
        prompts=(replace(data.prompts[0], tools=(tool,)),),
        models=(Model(id="m", description=f"password: {SECRET}"),),
    )
    screened = screen_data(data, SCANNER)
    assert screened.places == ("tools of prompt 'p0'", "model 'm'")
    assert SCANNER.find(read_text([screened.data.prompts[0].tools, screened.data.models[0].description])) == frozenset()
    assert screened.data.prompts[0].tools[0]["type"] == "function"


def test_a_tool_is_left_out_if_its_secret_cannot_be_redacted() -> None:
    tool = {"name": "f", "ssn": 536904399}
    data = make_data("What is rice?")
    data = replace(data, prompts=(replace(data.prompts[0], tools=(tool,)),))
    assert screen_data(data, SCANNER).data.prompts[0].tools == ()


def test_an_error_names_only_the_first_places() -> None:
    data = make_data(*(f"write to jane{number}@example.org" for number in range(9)))
    with pytest.raises(GateRefused, match=r"in 9 places: prompt 'p0'.*prompt 'p4' and 4 more"):
        require_clean(screen_data(data, SCANNER))


def test_a_card_is_screened_before_it_is_published() -> None:
    require_clean_text("the card", '{"note": "trained on sums"}', SCANNER)
    with pytest.raises(GateRefused, match="the card holds 1 x e-mail address"):
        require_clean_text("the card", '{"note": "ask jane@example.org"}', SCANNER)
