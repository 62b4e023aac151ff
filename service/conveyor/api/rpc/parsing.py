"""From the bytes of a message to a message, or to an error that names the field.

protobuf says of a message only that it can't be parsed. Where it fails, the bytes are read once more without a
schema, as unknown fields, and held against the descriptor until the field at fault is found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from conveyor.errors import InvalidArgument

__all__ = ["parse_message"]

MessageT = TypeVar("MessageT", bound=Message)


_LENGTH_DELIMITED = 2
_DOUBLE_BYTES = 8


def parse_message(message_type: type[MessageT], raw: bytes) -> MessageT:
    """Parses a message.

    Raises:
        InvalidArgument: It is malformed, or a string in it is not UTF-8.
    """
    message = message_type()
    try:
        message.ParseFromString(raw)
    except DecodeError as fault:
        field, reason = _locate(_fields(message_type), raw) or (None, "it is malformed")
        where = field or "the message"
        raise InvalidArgument(f"{where} cannot be parsed as protobuf: {reason}", field=field) from fault
    return message


def _fields(message_type: type[Message]) -> Mapping[int, FieldDescriptor]:
    # The stubs give protobuf's two implementations classes of their own.
    return cast(Mapping[int, FieldDescriptor], message_type.DESCRIPTOR.fields_by_number)


def _locate(fields: Mapping[int, FieldDescriptor], raw: bytes) -> tuple[str | None, str] | None:
    """Returns the path and the reason of the first fault in a message, None if there is none.

    Descends as deep as the messages of the interface are nested, however the bytes are.
    """
    try:
        unknown = UnknownFieldSet(Empty.FromString(raw))
    except DecodeError:
        return None, "it is cut short or not a message"
    seen: Counter[int] = Counter()
    for index in range(len(unknown)):
        part = unknown[index]
        field = fields.get(part.field_number)
        if field is None or part.wire_type != _LENGTH_DELIMITED:
            # protobuf keeps both as unknown fields; neither is a fault.
            continue
        name = f"{field.name}[{seen[field.number]}]" if field.is_repeated else field.name
        seen[field.number] += 1
        fault = _locate_in_value(field, name, part.data)
        if fault is not None:
            return fault
    return None


def _locate_in_value(field: FieldDescriptor, name: str, data: bytes) -> tuple[str, str] | None:
    if field.type == FieldDescriptor.TYPE_STRING:
        try:
            data.decode()
        except UnicodeDecodeError:
            return name, "it is not UTF-8"
    elif field.message_type is not None:
        inner = _locate(field.message_type.fields_by_number, data)
        if inner is not None:
            path, reason = inner
            return (name if path is None else f"{name}.{path}"), reason
    elif field.type == FieldDescriptor.TYPE_DOUBLE and len(data) % _DOUBLE_BYTES:
        return field.name, "its length is not a multiple of 8 bytes"
    return None
