"""The built-in encoders, registered like any plugin."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ripieno.encoders.base import Encoder
from ripieno.encoders.causal import CausalEncoder, CausalOptions
from ripieno.encoders.llama import LlamaEncoder, LlamaEncoderOptions
from ripieno.encoders.onnx import OnnxEncoder
from ripieno.encoders.remote import RemoteEncoder, RemoteOptions
from ripieno.encoders.static import StaticEncoder
from ripieno.plugins import NoOptions, Plugin


class OnnxOptions(BaseModel):
    """Options of `encoder.name = "onnx"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path


static: Plugin[NoOptions, Encoder] = Plugin(NoOptions, lambda options: StaticEncoder())
onnx: Plugin[OnnxOptions, Encoder] = Plugin(OnnxOptions, lambda options: OnnxEncoder(options.folder))
remote: Plugin[RemoteOptions, Encoder] = Plugin(RemoteOptions, RemoteEncoder)
llama: Plugin[LlamaEncoderOptions, Encoder] = Plugin(LlamaEncoderOptions, LlamaEncoder)
causal: Plugin[CausalOptions, Encoder] = Plugin(CausalOptions, CausalEncoder)
