"""LangChain: its own conformance suite for chat models, run against the gateway, and its embeddings."""

from typing import Literal

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests


@pytest.mark.asyncio(loop_scope="session")  # LangChain keeps its connections from one test to the next
class TestChatModel(ChatModelIntegrationTests):  # type: ignore[misc]  # not typed here
    """Everything that LangChain asks of a chat model, but for what the properties below say does not apply."""

    @pytest.fixture(autouse=True)
    def _address(self, gateway: str) -> None:
        type(self).address = f"{gateway}/v1"

    address = ""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI  # type: ignore[no-any-return]  # not typed here

    @property
    def chat_model_params(self) -> dict[str, object]:
        return {"model": "obliging", "base_url": self.address, "api_key": "none", "stream_usage": True}

    @property
    def supports_image_inputs(self) -> bool:
        return False  # the suite fetches a picture from the network; images are tested with the OpenAI client

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def structured_output_kwargs(self) -> dict[str, object]:
        return {"method": "json_schema"}

    @property
    def supported_usage_metadata_details(
        self,
    ) -> dict[Literal["invoke", "stream"], list[str]]:
        return {"invoke": [], "stream": []}


def test_embeddings(gateway: str) -> None:
    embeddings = OpenAIEmbeddings(
        model="auto", base_url=f"{gateway}/v1", api_key="none", check_embedding_ctx_length=False
    )
    vectors = embeddings.embed_documents(["a cat", "tax law"])
    assert len(vectors) == 2
    assert embeddings.embed_query("a cat") == pytest.approx(vectors[0])
