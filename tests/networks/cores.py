"""OpenVINO as it is on processors that it has no kernels for: its own reference loops, asked for in a model's text."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from openscans.networks.openvino_runtime import abilities_of, open_abilities, openvino

CONVOLUTION = re.compile(
    r'(<layer id="\d+" name="[^"]*" type="Convolution(?:BackpropData)?" version="opset1">'
    r'\s*<data strides="(.*?)"[^>]*/>)'
    r"(?:\s*<rt_info>.*?</rt_info>)?",
    re.DOTALL,
)

REFERENCE = '<rt_info><attribute name="primitives_priority" version="0" value="cpu:ref_any" /></rt_info>'


with tempfile.TemporaryDirectory() as nowhere:
    HAS_VOLUMES = abilities_of(openvino.Core(), openvino.Type.f32, open_abilities(Path(nowhere))).convolves_volumes

needs_volumes = pytest.mark.skipif(not HAS_VOLUMES, reason="OpenVINO has no kernels for volumes here, as on ARM")


class CoreWithoutVolumes(openvino.Core):
    """As on ARM: whatever is convolved over volumes runs on reference loops."""

    dimensions = (3,)

    def compile_model(self, model: openvino.Model, device: str, config: Mapping[str, Any]) -> openvino.CompiledModel:
        with tempfile.TemporaryDirectory() as folder:
            text, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
            openvino.serialize(model, text, weights)
            text.write_text(CONVOLUTION.sub(self._slow, text.read_text()))
            return super().compile_model(self.read_model(text, weights), device, dict(config))

    def _slow(self, layer: "re.Match[str]") -> str:
        over = len(layer[2].split(","))
        return layer[1] + (REFERENCE if over in self.dimensions else "")


class CoreWithoutKernels(CoreWithoutVolumes):
    """As on a processor that nobody thought of: planes are no faster."""

    dimensions = (2, 3)


class CoreWithoutInt8(openvino.Core):
    """As where 8-bit integers cannot be convolved: what wishes for them raises ``error`` while there is one."""

    error: Exception | None = RuntimeError("could not create a primitive descriptor for the convolution primitive")

    def compile_model(self, model: openvino.Model, device: str, config: Mapping[str, Any]) -> openvino.CompiledModel:
        if self.error and any(node.get_type_name() == "FakeQuantize" for node in model.get_ops()):
            raise self.error
        return super().compile_model(model, device, dict(config))


class CoreThatCompilesInt8Once(CoreWithoutInt8):
    """As where memory runs out between the first wish for 8-bit integers and the second; later there is some again."""

    def __init__(self) -> None:
        super().__init__()
        self.error = None
        self._wishes = 0

    def compile_model(self, model: openvino.Model, device: str, config: Mapping[str, Any]) -> openvino.CompiledModel:
        wished = any(node.get_type_name() == "FakeQuantize" for node in model.get_ops())
        self._wishes += wished
        if wished and self._wishes == 2:
            raise RuntimeError("std::bad_alloc")
        return super().compile_model(model, device, config)


class CoreWithoutBfloat16(openvino.Core):
    """As where a processor's bfloat16 is switched off: the runtime names it, and compiles nothing in it."""

    def get_property(self, *names: str) -> Any:
        found = super().get_property(*names)
        return sorted({*found, "BF16"}) if names[-1] == "OPTIMIZATION_CAPABILITIES" else found

    def compile_model(self, model: openvino.Model, device: str, config: Mapping[str, Any]) -> openvino.CompiledModel:
        if config["INFERENCE_PRECISION_HINT"] == openvino.Type.bf16:
            raise RuntimeError("could not create a primitive descriptor for the deconvolution primitive")
        return super().compile_model(model, device, dict(config))


class CoreShortOfMemory(openvino.Core):
    """As where another program takes the memory just when it is tried what the runtime can do."""

    def compile_model(self, model: openvino.Model, device: str, config: Mapping[str, Any]) -> openvino.CompiledModel:
        if model.get_friendly_name() == "trial":
            raise RuntimeError("std::bad_alloc")
        return super().compile_model(model, device, dict(config))
