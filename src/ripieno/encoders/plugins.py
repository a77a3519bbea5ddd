"""The built-in encoders, registered like any plugin."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ripieno.domain import Privacy
from ripieno.encoders.base import Encoder
from ripieno.encoders.causal import CausalEncoder, CausalOptions
from ripieno.encoders.llama import LlamaEncoder, LlamaEncoderOptions
from ripieno.encoders.onnx import OnnxEncoder
from ripieno.encoders.remote import RemoteEncoder
from ripieno.encoders.static import StaticEncoder
from ripieno.plugins import NoOptions, Plugin


class OnnxOptions(BaseModel):
    """Options of `encoder.name = "onnx"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path


class RemoteOptions(BaseModel):
    """Options of `encoder.name = "remote"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str
    model: str
    dimensions: int = Field(ge=1)
    api_key: SecretStr | None = None
    privacy: Privacy | None = None
    """How far a text travels to it. Default: local for an address of this machine, else public."""


def _make_remote(options: RemoteOptions) -> Encoder:
    key = options.api_key.get_secret_value() if options.api_key else None
    return RemoteEncoder(
        base_url=options.base_url,
        model=options.model,
        dimensions=options.dimensions,
        api_key=key,
        privacy=options.privacy,
    )


static: Plugin[NoOptions, Encoder] = Plugin(NoOptions, lambda options: StaticEncoder())
onnx: Plugin[OnnxOptions, Encoder] = Plugin(OnnxOptions, lambda options: OnnxEncoder(options.folder))
remote: Plugin[RemoteOptions, Encoder] = Plugin(RemoteOptions, _make_remote)
llama: Plugin[LlamaEncoderOptions, Encoder] = Plugin(LlamaEncoderOptions, LlamaEncoder)
causal: Plugin[CausalOptions, Encoder] = Plugin(CausalOptions, CausalEncoder)
