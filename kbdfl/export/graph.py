"""The trained model as an ONNX step graph: one token and a state in, suggestions and the next state out.

The equations are those of `kbdfl/model/cifg.py`. ONNX's own LSTM operator has no projection, so the cell is
spelt out in elementary operators; the state stands outside, so a keyboard runs one step a committed word.

inputs    token int64 (1,), state_r float32 (1,E), state_c float32 (1,H)
outputs   top_ids int64 (1,3), top_probs float32 (1,3), logits float32 (1,V),
          next_state_r float32 (1,E), next_state_c float32 (1,H)

`top_ids` are chosen among the words: the four special tokens are cut off before the softmax, whatever their
logits are. `logits` are those of the model, specials included, for completion and for evaluation.

Both quantised graphs store the embedding once: the input gathers its rows, the output multiplies with them.
float32 and int8 use the standard operators of opset 17; int4 adds two of onnxruntime's own.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from kbdfl._version import __version__
from kbdfl.errors import ConfigError, ModelError
from kbdfl.export.precision import BLOCK, PRECISIONS, half, quantise_int4, quantise_int8
from kbdfl.model import CifgConfig
from kbdfl.text import SPECIALS

OPSET, IR_VERSION = 17, 8  # the pair that the widest range of runtimes loads
CONTRIB, CONTRIB_VERSION = "com.microsoft", 1  # onnxruntime's own operators
TOP = 3  # slots of a suggestion strip


@dataclass(frozen=True, slots=True)
class _Builder:
    """Nodes and constants in the order in which they are added; every method returns a tensor's name."""

    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def whole(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, np.int64))

    def nodes_of(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> list[str]:
        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))
        return outputs

    def node(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        return self.nodes_of(kind, list(inputs), [name or f"n{len(self.nodes)}"], **attributes)[0]

    def float32(self, tensor: str) -> str:
        return self.node("Cast", tensor, to=TensorProto.FLOAT)

    def half(self, name: str, value: np.ndarray) -> str:
        """A constant that is stored as float16 and used as float32: runtimes widen it once, at loading."""
        return self.float32(self.constant(name, half(name, value)))


def step_graph(
    params: np.ndarray, config: CifgConfig, *, precision: str, metadata: dict[str, Any]
) -> ModelProto:
    """The step graph of `params`, flat float32 (P,), as a checked ONNX model of opset 17.

    `precision` is "float32" (exact), "int8" (a float16 scale a row or column; activations are quantised on the
    way by `DynamicQuantizeLinear`) or "int4" (a float16 scale a block of 32 weights; opset com.microsoft 1).
    `metadata` (JSON values) is kept in the model's properties, but for what is None. Raises ConfigError for an
    unknown precision and ModelError for parameters that are not this model's, not finite, or too large for
    float16.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision}")
    if config.vocab < len(SPECIALS) + TOP:
        raise ConfigError(f"an exported model needs at least {TOP} words, got {config.vocab - len(SPECIALS)}")
    if not np.isfinite(params).all():
        raise ModelError(f"all parameters must be finite, {int((~np.isfinite(params)).sum())} are not")
    views = config.spec.views(np.asarray(params, np.float32))
    builder = _Builder()
    {"float32": _float32_step, "int8": _int8_step, "int4": _int4_step}[precision](builder, views, config)
    _suggestions(builder, config)

    def tensor(name: str, kind: int, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    real, whole = TensorProto.FLOAT, TensorProto.INT64
    state = (("state_r", config.embed), ("state_c", config.hidden))
    graph = helper.make_graph(
        builder.nodes,
        "kbdfl_step",
        [tensor("token", whole, 1), *(tensor(name, real, 1, width) for name, width in state)],
        [
            tensor("top_ids", whole, 1, TOP),
            tensor("top_probs", real, 1, TOP),
            tensor("logits", real, 1, config.vocab),
            *(tensor(f"next_{name}", real, 1, width) for name, width in state),
        ],
        builder.constants,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    if precision == "int4":
        opsets.append(helper.make_opsetid(CONTRIB, CONTRIB_VERSION))
    model = helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=IR_VERSION,
        producer_name="kbdfl",
        producer_version=__version__,
    )
    known = {key: str(value) for key, value in sorted(metadata.items()) if value is not None}
    helper.set_model_props(model, known)
    checker.check_model(model, full_check=True)
    return model


def _cell(builder: _Builder, gates: str, config: CifgConfig) -> str:
    """From the gates' pre-activations (1,3H) to s(o) tanh(c) (1,H); names the new cell next_state_c."""
    widths = builder.whole("widths", *3 * (config.hidden,))
    g, f, o = builder.nodes_of("Split", [gates, widths], ["g", "f", "o"], axis=1)
    g, f, o = builder.node("Tanh", g), builder.node("Sigmoid", f), builder.node("Sigmoid", o)
    # f c + (1 - f) g, written with one product
    kept = builder.node("Mul", f, builder.node("Sub", "state_c", g))
    cell = builder.node("Add", g, kept, name="next_state_c")
    return builder.node("Mul", o, builder.node("Tanh", cell))


def _float32_step(builder: _Builder, views: dict[str, np.ndarray], config: CifgConfig) -> None:
    embedding = builder.constant("emb", views["emb"])
    # [e, r] [wx; wh]: one product reads its weights faster than two
    weights = builder.constant("w", np.concatenate([views["wx"], views["wh"]]))
    both = builder.node("Concat", builder.node("Gather", embedding, "token"), "state_r", axis=1)
    gates = builder.node("Gemm", both, weights, builder.constant("bg", views["bg"]))
    projection = builder.constant("wp", views["wp"])
    output = builder.node("MatMul", _cell(builder, gates, config), projection, name="next_state_r")
    builder.node("Gemm", output, embedding, builder.constant("bias", views["bias"]), transB=1, name="logits")


def _int8_step(builder: _Builder, views: dict[str, np.ndarray], config: CifgConfig) -> None:
    def stored(name: str, weights: np.ndarray, axis: int) -> tuple[str, str]:
        q, scales = quantise_int8(name, weights, axis=axis)
        return builder.constant(name, q), builder.half(f"{name}_scale", scales)

    def product(
        left: str, right: str, scales: str, *, name: str | None = None, bias: str | None = None
    ) -> str:
        """left (1,K) float32, quantised here, times right (K,N) int8 with column scales (N,) float32."""
        index = len(builder.nodes)
        quantised, scale, zero = builder.nodes_of(
            "DynamicQuantizeLinear", [left], [f"{part}{index}" for part in ("q", "s", "z")]
        )
        total = builder.float32(builder.node("MatMulInteger", quantised, right, zero))
        # One scale after the other. Multiplied with each other first, they would be a pattern that onnxruntime
        # fuses into one operator, with which a step of `gboard` takes a third longer.
        columns = builder.node("Mul", total, scales)
        if bias is None:
            return builder.node("Mul", columns, scale, name=name)
        return builder.node("Add", builder.node("Mul", columns, scale), bias, name=name)

    embedding, row_scales = stored("emb", views["emb"], 1)
    row = builder.float32(builder.node("Gather", embedding, "token"))
    word = builder.node("Mul", row, builder.node("Gather", row_scales, "token"))
    weights, scales = stored("w", np.concatenate([views["wx"], views["wh"]]), 0)
    both = builder.node("Concat", word, "state_r", axis=1)
    gates = product(both, weights, scales, bias=builder.half("bg", views["bg"]))
    weights, scales = stored("wp", views["wp"], 0)
    output = product(_cell(builder, gates, config), weights, scales, name="next_state_r")
    # The same int8 rows, seen as columns. Runtimes fold the Transpose when they load the file; without it the
    # product would take the embedding from the right side unpacked, at half the speed.
    columns = builder.node("Transpose", embedding, perm=[1, 0])
    product(output, columns, row_scales, bias=builder.half("bias", views["bias"]), name="logits")


def _int4_step(builder: _Builder, views: dict[str, np.ndarray], config: CifgConfig) -> None:
    def stored(name: str, weights: np.ndarray) -> tuple[str, str]:
        """The blocks and scales of weights (N,K), the transpose of what a row is multiplied with."""
        packed, scales = quantise_int4(name, weights)
        return builder.constant(name, packed), builder.half(f"{name}_scale", scales)

    def product(
        left: str, right: str, scales: str, *, size: tuple[int, int], name: str | None = None, bias: str = ""
    ) -> str:
        """left (1,K) float32 times right, the packed blocks of (N,K); `size` is (K, N)."""
        zero_points = order = ""  # left out: nibble 8 is zero, and blocks stand in order
        return builder.node(
            "MatMulNBits",
            *(left, right, scales, zero_points, order, bias),
            name=name,
            domain=CONTRIB,
            K=size[0],
            N=size[1],
            bits=4,
            block_size=BLOCK,
            accuracy_level=4,  # activations may be rounded to int8 a block: half the time of float32
        )

    embed, hidden, vocab = config.embed, config.hidden, config.vocab
    # MatMulNBits wants packed rows as (V,n,16), and GatherBlockQuantized takes them as they are when its
    # scales have three axes as well: so one tensor serves both ends.
    embedding, row_scales = stored("emb", views["emb"])
    blocks = -(-embed // BLOCK)
    scales = builder.node("Reshape", row_scales, builder.whole("scales_shape", vocab, blocks, 1))
    row = builder.node(
        "GatherBlockQuantized",
        *(embedding, "token", scales),
        domain=CONTRIB,
        bits=4,
        block_size=BLOCK,
        gather_axis=0,
        quantize_axis=2,
    )
    word = builder.node("Reshape", row, builder.whole("row_shape", 1, blocks * BLOCK))
    if embed % BLOCK:
        bounds = [
            builder.whole(f"word_{part}", at) for part, at in (("start", 0), ("end", embed), ("axis", 1))
        ]
        word = builder.node("Slice", word, *bounds)
    weights, scales = stored("w", np.concatenate([views["wx"], views["wh"]]).T)
    both = builder.node("Concat", word, "state_r", axis=1)
    bias = builder.half("bg", views["bg"])
    gates = product(both, weights, scales, size=(2 * embed, 3 * hidden), bias=bias)
    weights, scales = stored("wp", views["wp"].T)
    cell = _cell(builder, gates, config)
    output = product(cell, weights, scales, size=(hidden, embed), name="next_state_r")
    bias = builder.half("bias", views["bias"])
    product(output, embedding, row_scales, size=(embed, vocab), bias=bias, name="logits")


def _suggestions(builder: _Builder, config: CifgConfig) -> None:
    first, end = builder.whole("first", len(SPECIALS)), builder.whole("end", config.vocab)
    axis, count = builder.whole("axis", 1), builder.whole("count", TOP)
    words = builder.node("Softmax", builder.node("Slice", "logits", first, end, axis), axis=1)
    _, places = builder.nodes_of("TopK", [words, count], ["top_probs", "places"], axis=1)
    builder.node("Add", places, first, name="top_ids")
