"""`ripieno serve` with a certificate: whoever talks to it talks HTTPS."""

import json
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import ClientConnectionError, ClientSession, TCPConnector
from tests.certificates import Authority
from tests.conftest import HANG_S
from tests.faults.conftest import ServeIn
from tests.faults.test_gateway import ASK, JSON, ask, write_settings

from ripieno.testing import Reply, ScriptedServer


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("place", ["options", "file"])
async def test_serve_answers_whole_and_streamed_over_https(
    serve_in: ServeIn, tmp_path: Path, place: str, workers: int
) -> None:
    authority = Authority(tmp_path)
    own = authority.sign("127.0.0.1")
    with ScriptedServer([Reply(text="four")]) as good:
        files = [f'tls_cert = "{own.cert_file.name}"', f'tls_key = "{own.key_file.name}"']
        write_settings(tmp_path, good, gateway=files if place == "file" else [])
        options = ["--tls-cert", str(own.cert_file), "--tls-key", str(own.key_file)] if place == "options" else []
        served = serve_in(tmp_path, "--workers", str(workers), *options)
        assert served.address.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=authority.ca_file)
        async with ClientSession(headers=JSON, connector=TCPConnector(ssl=trusting)) as client:
            assert (await ask(client, served))[0] == 200
            body = json.dumps(json.loads(ASK) | {"stream": True}).encode()
            async with client.post(f"{served.address}/v1/chat/completions", data=body) as response:
                assert (await response.text()).endswith("data: [DONE]\n\n")
        async with ClientSession(headers=JSON) as client:
            with pytest.raises(ClientConnectionError):
                await ask(client, served)
            with pytest.raises(ClientConnectionError):
                await client.get(f"{served.address.replace('https', 'http')}/healthz")
        served.process.terminate()
        assert served.process.wait(HANG_S) == 0


def test_a_key_that_does_not_fit_is_named_with_the_fix(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.sign("127.0.0.1", name="one"), authority.sign("127.0.0.1", name="other")
    with ScriptedServer() as good:
        write_settings(tmp_path, good)
        for options, said in (
            (["--tls-cert", str(one.cert_file), "--tls-key", str(other.key_file)], "one.crt or its key cannot be used"),
            (["--tls-key", str(one.key_file)], "tls_key needs tls_cert"),
        ):
            ended = subprocess.run(
                [sys.executable, "-m", "ripieno.cli", "serve", "--port", "0", *options],
                cwd=tmp_path, capture_output=True, text=True, timeout=HANG_S, check=False,
            )  # fmt: skip
            assert ended.returncode == 3, ended.stderr
            assert said in ended.stderr
            assert "Traceback" not in ended.stderr
