"""The trained model as an ONNX step graph: one token and a state in, suggestions and the next state out.

The equations are those of `kbdfl/model/cifg.py`. ONNX's own LSTM operator has no projection, so the cell is
spelt out in elementary operators; the state stands outside, so a keyboard runs one step a committed word.

inputs    token int64 (1,), state_r float32 (1,E), state_c float32 (1,H)
outputs   top_ids int64 (1,3), top_probs float32 (1,3), logits float32 (1,V),
          next_state_r float32 (1,E), next_state_c float32 (1,H)

`top_ids` are chosen among the words: the four special tokens are cut off before the softmax, whatever their
logits are. `logits` are those of the model, specials included, for completion and for evaluation.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from kbdfl._version import __version__
from kbdfl.errors import ConfigError, ModelError
from kbdfl.model import CifgConfig
from kbdfl.text import SPECIALS

PRECISIONS = ("float32", "int8")
OPSET, IR_VERSION = 17, 8  # the pair that the widest range of runtimes loads
TOP = 3  # slots of a suggestion strip


@dataclass(frozen=True, slots=True)
class _Builder:
    """Nodes and constants in the order in which they are added; every method returns a tensor's name."""

    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def nodes_of(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> list[str]:
        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))
        return outputs

    def node(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        return self.nodes_of(kind, list(inputs), [name or f"n{len(self.nodes)}"], **attributes)[0]

    def float32(self, tensor: str) -> str:
        return self.node("Cast", tensor, to=TensorProto.FLOAT)


def quantise(weights: np.ndarray, *, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 with one float16 scale a row (axis 1) or a column (axis 0): weights ~ q * scale.

    weights float32 (R,C), finite. Returns (q int8 (R,C) in -127..127, scales float16, `axis` of length 1). A
    scale is rounded up to float16 and weights are divided by what it holds: none is clipped, and none errs by
    more than half its scale. Raises ModelError for weights of which float16 cannot hold the scale.
    """
    exact = np.abs(weights).max(axis=axis, keepdims=True) / 127
    limit = 60_000  # below the largest float16, with room to round up
    if exact.max() > limit:
        raise ModelError(f"int8 needs weights below {127 * limit}, got {float(exact.max()) * 127:.3g}")
    nearest = np.maximum(exact, np.finfo(np.float16).smallest_subnormal).astype(np.float16)
    scales = np.where(nearest < exact, np.nextafter(nearest, np.float16(np.inf)), nearest)
    return np.rint(weights / scales.astype(np.float32)).astype(np.int8), scales


def step_graph(
    params: np.ndarray, config: CifgConfig, *, precision: str, metadata: dict[str, Any]
) -> ModelProto:
    """The step graph of `params`, flat float32 (P,), as a checked ONNX model of opset 17.

    `precision` is "float32" (exact) or "int8": weights int8 with float16 scales, the embedding stored once
    for both ends, activations quantised on the way (`DynamicQuantizeLinear`). `metadata` (JSON values) is
    kept in the model's properties. Raises ConfigError for an unknown precision and ModelError for parameters
    that are not this model's, not finite, or too large for float16.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision}")
    if config.vocab < len(SPECIALS) + TOP:
        raise ConfigError(f"an exported model needs at least {TOP} words, got {config.vocab - len(SPECIALS)}")
    if not np.isfinite(params).all():
        raise ModelError(f"all parameters must be finite, {int((~np.isfinite(params)).sum())} are not")
    views = config.spec.views(np.asarray(params, np.float32))
    builder = _Builder()
    (_float32_step if precision == "float32" else _int8_step)(builder, views, config)
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
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="kbdfl",
        producer_version=__version__,
    )
    helper.set_model_props(model, {key: str(metadata[key]) for key in sorted(metadata)})
    checker.check_model(model, full_check=True)
    return model


def _cell(builder: _Builder, gates: str, config: CifgConfig) -> str:
    """From the gates' pre-activations (1,3H) to s(o) tanh(c) (1,H); names the new cell next_state_c."""
    widths = builder.constant("widths", np.full(3, config.hidden, np.int64))
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
    def half(name: str, value: np.ndarray) -> str:
        with np.errstate(over="ignore"):  # an overflow is reported below
            stored = value.astype(np.float16)
        if not np.isfinite(stored).all():
            raise ModelError(
                f"int8 keeps {name} in float16, up to 65504, got {float(np.abs(value).max()):.3g}"
            )
        return builder.constant(name, stored)

    def product(
        left: str, right: str, scales: str, *, name: str | None = None, bias: str | None = None
    ) -> str:
        """left (1,K) float32, quantised here, times right (K,N) int8 with column scales (1,N) float32."""
        index = len(builder.nodes)
        quantised, scale, zero = builder.nodes_of(
            "DynamicQuantizeLinear", [left], [f"{part}{index}" for part in ("q", "s", "z")]
        )
        total = builder.float32(builder.node("MatMulInteger", quantised, right, zero))
        factor = builder.node("Mul", scale, scales)
        if bias is None:
            return builder.node("Mul", total, factor, name=name)
        return builder.node("Add", builder.node("Mul", total, factor), bias, name=name)

    def stored(name: str, weights: np.ndarray, axis: int) -> tuple[str, str]:
        q, scales = quantise(weights, axis=axis)
        return builder.constant(name, q), builder.constant(f"{name}_scale", scales)

    embedding, row_scales = stored("emb", views["emb"], 1)
    word = builder.node(
        "Mul",
        builder.float32(builder.node("Gather", embedding, "token")),
        builder.float32(builder.node("Gather", row_scales, "token")),
    )
    weights, scales = stored("w", np.concatenate([views["wx"], views["wh"]]), 0)
    both = builder.node("Concat", word, "state_r", axis=1)
    gates = product(both, weights, builder.float32(scales), bias=builder.float32(half("bg", views["bg"])))
    weights, scales = stored("wp", views["wp"], 0)
    output = product(_cell(builder, gates, config), weights, builder.float32(scales), name="next_state_r")
    # The same int8 rows, seen as columns. Runtimes fold the Transpose when they load the file; without it the
    # product would take the embedding from the right side unpacked, at half the speed.
    columns = builder.node("Transpose", embedding, perm=[1, 0])
    column_scales = builder.node("Transpose", builder.float32(row_scales), perm=[1, 0])
    product(output, columns, column_scales, bias=builder.float32(half("bias", views["bias"])), name="logits")


def _suggestions(builder: _Builder, config: CifgConfig) -> None:
    first = builder.constant("first", np.array([len(SPECIALS)], np.int64))
    end = builder.constant("end", np.array([config.vocab], np.int64))
    axis = builder.constant("axis", np.array([1], np.int64))
    words = builder.node("Softmax", builder.node("Slice", "logits", first, end, axis), axis=1)
    count = builder.constant("count", np.array([TOP], np.int64))
    _, places = builder.nodes_of("TopK", [words, count], ["top_probs", "places"], axis=1)
    builder.node("Add", places, first, name="top_ids")
