"""The Open Inference Protocol, as much of it as one text and its answer need, over HTTP and gRPC."""

from __future__ import annotations

import json
import struct

__all__ = ["binary_request", "grpc_frame", "json_request", "message", "read_json", "read_message"]


def json_request(text: str) -> bytes:
    """An inference request as JSON."""
    tensor = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [text]}
    return json.dumps({"inputs": [tensor]}, ensure_ascii=False, separators=(",", ":")).encode()


def binary_request(text: str) -> tuple[bytes, dict[str, str]]:
    """The same with the text behind the JSON (Triton's binary tensor data extension), and the headers it needs."""
    data = text.encode()
    tensor = {
        "name": "text",
        "shape": [1, 1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(data) + 4},
    }
    head = json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return head + struct.pack("<I", len(data)) + data, headers


def read_json(body: bytes) -> tuple[str, float]:
    """Label and score of an inference response in JSON."""
    outputs = {output["name"]: output["data"] for output in json.loads(body)["outputs"]}
    return outputs["label"][0], float(outputs["score"][0])


def grpc_frame(message: bytes) -> bytes:
    """A message as gRPC puts it into a request's body."""
    return struct.pack(">BI", 0, len(message)) + message


def message(text: str, model: str, *, raw: bool) -> bytes:
    """A `ModelInferRequest`, the text in `raw_input_contents` or in the tensor itself.

    Written out by hand, because a second copy of the protocol's descriptors does not go into one process.
    """
    data = text.encode()
    tensor = _field(1, b"text") + _field(2, b"BYTES") + _field(3, b"\x01\x01")
    if raw:
        contents = _field(7, struct.pack("<I", len(data)) + data)
    else:
        tensor, contents = tensor + _field(5, _field(8, data)), b""
    return _field(1, model.encode()) + _field(5, tensor) + contents


def read_message(content: bytes) -> tuple[str, float]:
    """Label and score of a `ModelInferResponse`.

    Raises:
        ValueError: It holds none.
    """
    fields = _fields(content)
    names = [_fields(tensor)[1][0].decode() for tensor in fields[5]]
    if 6 in fields:
        raw = dict(zip(names, fields[6], strict=True))
        score = raw["score"]
        return raw["label"][4:].decode(), struct.unpack("<f" if len(score) == 4 else "<d", score)[0]
    tensors = dict(zip(names, fields[5], strict=True))
    label = _fields(_fields(tensors["label"])[5][0])[8][0].decode()
    contents = _fields(_fields(tensors["score"])[5][0])
    number, form = (6, "<f") if 6 in contents else (7, "<d")
    return label, struct.unpack(form, contents[number][0])[0]


def _field(number: int, content: bytes) -> bytes:
    """A field of protobuf's wire format whose content has a length."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """The fields of a message that have a length, in order; numbers are left out."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 2:
            size, at = _read_varint(message, at)
            found.setdefault(number, []).append(message[at : at + size])
            at += size
        elif kind == 0:
            _, at = _read_varint(message, at)
        else:
            at += {1: 8, 5: 4}[kind]
    return found


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
