"""An ONNX model of one recurrent layer, written as the bytes of its protobuf messages.

The `onnx` package would write it too, at 31 MB for these few fields. Numbers of messages and fields are those of
`onnx/onnx.proto3`; meaning and order of the operators' inputs are those of the operator specification
(`docs/Operators.md`: LSTM, GRU, RNN, version 14).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["INPUTS", "OUTPUTS", "recurrent_graph"]

# What is fed and fetched; an LSTM alone has `c`. x: [steps, rows, width], h and c: [1, rows, hidden],
# outputs: [steps, 1, rows, hidden], all float32.
INPUTS = ("x", "h", "c")
OUTPUTS = ("outputs", "h_after", "c_after")

_OPERATORS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
# Where torch keeps each of ONNX's gates: input, output, forget, cell; update, reset, hidden.
_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}

_IR_VERSION, _OPERATOR_SET = 8, 14
_FLOAT, _ATTRIBUTE_INT = 1, 2


def recurrent_graph(
    cell: str, weights: Sequence[npt.NDArray[np.float32]], biases: Sequence[npt.NDArray[np.float32]]
) -> bytes:
    """A serialised model that runs one direction of one layer over any rows and steps.

    Args:
        cell: `lstm`, `gru` or `rnn`.
        weights: As in torch: of the input [gates × hidden, width], of the state [gates × hidden, hidden].
        biases: As in torch: of the input and of the state, [gates × hidden] each.
    """
    has_c = cell == "lstm"
    hidden = weights[1].shape[1]
    fed = ["x", "W", "R", "B", "", "h"] + (["c"] if has_c else [])  # "" is sequence_lens: every row has all steps
    attributes = [_int_attribute("hidden_size", hidden)]
    if cell == "gru":
        attributes.append(_int_attribute("linear_before_reset", 1))  # as in torch: U h + b first, then the reset gate
    node = _message(
        [
            *((1, name) for name in fed),
            *((2, name) for name in (OUTPUTS if has_c else OUTPUTS[:2])),
            (4, _OPERATORS[cell]),
            *((5, attribute) for attribute in attributes),
        ]
    )
    inputs, recurrent = (_in_onnx_order(cell, array)[None] for array in weights)
    bias = np.concatenate([_in_onnx_order(cell, array) for array in biases])[None]
    state: list[int | str] = [1, "rows", hidden]
    shapes: dict[str, list[int | str]] = {"x": ["steps", "rows", weights[0].shape[1]], "h": state, "c": state}
    results: dict[str, list[int | str]] = {
        "outputs": ["steps", 1, "rows", hidden],
        "h_after": state,
        "c_after": state,
    }
    parts: list[tuple[int, bytes]] = [(1, node), (2, b"layer")]
    parts += [(5, _tensor(name, array)) for name, array in (("W", inputs), ("R", recurrent), ("B", bias))]
    parts += [(11, _value(name, shapes[name])) for name in (INPUTS if has_c else INPUTS[:2])]
    parts += [(12, _value(name, results[name])) for name in (OUTPUTS if has_c else OUTPUTS[:2])]
    graph = _message(parts)
    operator_set = _message([(2, _OPERATOR_SET)])
    return _message([(1, _IR_VERSION), (7, graph), (8, operator_set)])


def _in_onnx_order(cell: str, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    gates = np.split(array, len(_GATES[cell]))
    return np.concatenate([gates[gate] for gate in _GATES[cell]])


def _tensor(name: str, array: npt.NDArray[np.float32]) -> bytes:
    raw = array.astype("<f4").tobytes()
    return _message([*((1, size) for size in array.shape), (2, _FLOAT), (8, name), (9, raw)])


def _value(name: str, shape: Iterable[int | str]) -> bytes:
    """A tensor that is fed or fetched; a size that varies has a name."""
    sizes = [_message([(1, size) if isinstance(size, int) else (2, size)]) for size in shape]
    tensor = _message([(1, _FLOAT), (2, _message([(1, size) for size in sizes]))])
    return _message([(1, name), (2, _message([(1, tensor)]))])


def _int_attribute(name: str, value: int) -> bytes:
    return _message([(1, name), (3, value), (20, _ATTRIBUTE_INT)])


def _message(fields: Iterable[tuple[int, int | str | bytes]]) -> bytes:
    """A protobuf message: each field a tag (number and wire type), then a varint, or a length and that many bytes."""
    written = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            written += _varint(number << 3) + _varint(value)
        else:
            raw = value.encode() if isinstance(value, str) else value
            written += _varint(number << 3 | 2) + _varint(len(raw)) + raw
    return bytes(written)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
