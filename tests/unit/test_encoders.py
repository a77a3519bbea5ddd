"""Encoders: the kit on each built-in, meaning, bounds and caching."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripieno.domain import Privacy, Vector
from ripieno.encoders import CachedEncoder, clip_text, encode_within
from ripieno.encoders.onnx import OnnxEncoder
from ripieno.encoders.static import StaticEncoder
from ripieno.errors import ConfigError
from ripieno.plugins import build_plugin
from ripieno.testing import check_encoder

STATIC = StaticEncoder()


async def test_the_static_encoder_passes_the_kit() -> None:
    await check_encoder(STATIC)
    await check_encoder(CachedEncoder(STATIC))


async def test_paraphrases_are_closer_than_unrelated_texts() -> None:
    pairs = (
        ("How do I reset my password?", "I forgot my password, how can I change it?"),
        ("What is the weather in Paris today?", "Tell me today's weather for Paris"),
        ("Solve the equation 3x + 4 = 19", "Find x in the equation 3x + 4 = 19"),
        ("Translate this sentence into Spanish", "Please put this sentence into Spanish"),
    )
    left = await STATIC.encode([a for a, _ in pairs])
    right = await STATIC.encode([b for _, b in pairs])
    closeness = left @ right.T
    strangers = closeness[~np.eye(len(pairs), dtype=bool)]
    assert closeness.diagonal().min() > strangers.max()


def test_long_texts_are_clipped_to_head_and_tail() -> None:
    text = "a" * 5000 + "b" * 5000
    clipped = clip_text(text, limit=100)
    assert len(clipped) == 101
    assert (clipped[0], clipped[-1]) == ("a", "b")
    assert clip_text("short", limit=100) == "short"


async def test_a_text_that_may_not_reach_the_encoder_gets_zeros() -> None:
    far = Counting()
    far.privacy = Privacy.PUBLIC
    assert (await encode_within(far, ["a", "b"], Privacy.LOCAL)).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert far.asked == []
    assert (await encode_within(far, ["a"], Privacy.PUBLIC)).shape == (1, 2)
    assert (await encode_within(STATIC, ["a word"], Privacy.LOCAL)).any()


class Counting:
    """Counts the texts that reach it."""

    name = "counting"
    dimensions = 2

    def __init__(self) -> None:
        self.privacy = Privacy.LOCAL
        self.asked: list[list[str]] = []
        self.is_closed = False

    async def encode(self, texts: Sequence[str]) -> Vector:
        self.asked.append(list(texts))
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32).reshape(len(texts), 2)

    async def close(self) -> None:
        self.is_closed = True


async def test_the_cache_encodes_only_missing_texts() -> None:
    inner = Counting()
    cache = CachedEncoder(inner, size=2)
    assert (await cache.encode(["a", "bb", "a"]))[:, 0].tolist() == [1.0, 2.0, 1.0]
    assert inner.asked == [["a", "bb"]]
    assert (await cache.encode(["bb", "ccc"]))[:, 0].tolist() == [2.0, 3.0]
    assert inner.asked[1:] == [["ccc"]]
    await cache.encode(["a"])
    assert inner.asked[-1] == ["a"], "the oldest row was dropped"
    assert (cache.hits, cache.misses) == (2, 4)
    await cache.close()
    assert inner.is_closed


def make_onnx(folder: Path) -> None:
    """Make a tiny model with the interface of a sentence transformer: ids in, one vector per token out."""
    from onnx import TensorProto, helper, numpy_helper, save_model
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[UNK]", "hello", "world", "paris", "word", "is"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.random.default_rng(0).normal(size=(len(words), 8)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["states"])],
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"])],
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["n", "t", 8])],
        [numpy_helper.from_array(table, "table")],
    )
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "m.onnx")


async def test_an_onnx_model_is_an_encoder(tmp_path: Path) -> None:
    make_onnx(tmp_path)
    encoder = OnnxEncoder(tmp_path)
    assert encoder.dimensions == 8
    await check_encoder(encoder)
    rows = await encoder.encode(["hello world", "world hello", "paris"])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
    await encoder.close()


def test_an_onnx_folder_without_files_is_refused_with_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no \*\.onnx") as caught:
        OnnxEncoder(tmp_path)
    assert "make minilm" in str(caught.value.hint)
    (tmp_path / "m.onnx").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"has no tokenizer\.json"):
        OnnxEncoder(tmp_path)


async def test_minilm_understands_more_than_the_static_table(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / ".cache" / "minilm"
    if not folder.is_dir():
        pytest.skip("MiniLM is not fetched: `make minilm`")
    encoder = OnnxEncoder(folder)
    await check_encoder(encoder)
    rows = await encoder.encode(["a cat sits on the mat", "a feline rests on the rug", "stock prices fell"])
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.3


async def test_the_options_of_an_encoder_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"encoder\.options\.folder"):
        build_plugin("ripieno.encoders", "onnx", {}, key="encoder.options")
    encoder = build_plugin(
        "ripieno.encoders", "remote", {"base_url": "http://127.0.0.1:9/v1", "model": "m", "dimensions": 2}, key="e"
    )
    with pytest.raises(ConfigError, match="did not answer with embeddings"):
        await encoder.encode(["a"])  # type: ignore[attr-defined]  # an Encoder
    await encoder.close()  # type: ignore[attr-defined]  # an Encoder


@given(st.text(max_size=80), st.text(alphabet="ab \t\n\x0b\x00\u00e9\u2003,.#42\u4e2d", max_size=40))
def test_words_are_tokenized_as_the_whole_text_is(anything: str, tricky: str) -> None:
    encoder = STATIC
    for text in (anything, tricky):
        whole = encoder._tokenizer.encode(text, False)
        assert encoder._tokenize([text]) == [whole]
        assert encoder._tokenize([text]) == [whole], "from what is kept"


async def test_the_token_cache_of_the_static_encoder_is_bounded() -> None:
    encoder = StaticEncoder()
    for start in range(0, 120_000, 10_000):
        await encoder.encode(
            [" ".join(f"w{n}" for n in range(start + k, start + k + 700)) for k in range(0, 9000, 700)]
        )
        assert len(encoder._known) <= 50_000 + 10_000
    await encoder.encode(["x" * 5000])
    assert max(map(len, encoder._known), default=0) <= 64


IN_THREADS = """
import threading
import ripieno.encoders
from ripieno.encoders.static import StaticEncoder
for _ in range(6):
    thread = threading.Thread(target=StaticEncoder)
    thread.start()
    thread.join()
"""


def test_the_static_encoder_can_be_opened_in_one_thread_after_another() -> None:
    done = subprocess.run([sys.executable, "-c", IN_THREADS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
