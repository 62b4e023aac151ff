"""From the bytes of a body to a checked value, or to an error that names the field."""

from __future__ import annotations

import gc
import re
from typing import TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from conveyor.api.offload import INLINE_BYTES
from conveyor.api.rest.bodies import READINGS
from conveyor.api.rest.json_path import path_at, render_path
from conveyor.errors import InvalidArgument
from conveyor.gateway.json_kind import kind_of
from conveyor.gateway.limits import Limits

__all__ = ["parse_body"]

BodyT = TypeVar("BodyT", bound=BaseModel)

_POSITION = re.compile(r" at line (\d+) column (\d+)$")

# What pydantic's error types accept, in the words of JSON.
_ACCEPTED = {
    "string_type": "a string",
    "list_type": "a list",
    "model_type": "an object",
    "float_type": "a number",
    "int_type": "a whole number",
}


def parse_body(body_type: type[BodyT], raw: bytes, limits: Limits) -> BodyT:
    """Parses and checks a body. Of a key that is given twice, the last counts. Large ones are for a thread.

    Raises:
        InvalidArgument: It is not JSON (NaN and Infinity are not), or not of that shape; the first fault is named.
    """
    if not raw or raw.isspace():
        raise InvalidArgument("the body is empty; a JSON object is accepted")
    try:
        # Parsed before it is validated: validators look at values, and pydantic takes longer from bytes at once.
        # NaN and numbers too large for a float pass here and are refused below, where their field is known.
        value = _decode(raw)
    except ValueError as fault:
        raise _syntax_error(raw, str(fault)) from fault
    if not isinstance(value, dict):
        raise InvalidArgument(f"the body must be a JSON object; got {kind_of(value)}")
    try:
        # What `model_validate` calls.
        return cast(BodyT, body_type.__pydantic_validator__.validate_python(value, context=limits))
    except ValidationError as fault:
        raise _shape_error(fault) from fault


def _decode(raw: bytes) -> object:
    """Decodes JSON without looking for garbage meanwhile.

    The parser keeps the interpreter's lock and makes no cycles. Of 8 MiB of empty lists, the collector's passes over
    everything that lives in the process took 1.2 of the 1.4 s in which nothing else ran.
    """
    if len(raw) <= INLINE_BYTES:
        return from_json(raw, cache_strings="keys")
    collecting = gc.isenabled()
    gc.disable()
    try:
        return from_json(raw, cache_strings="keys")
    finally:
        if collecting:
            gc.enable()


def _syntax_error(raw: bytes, reason: str) -> InvalidArgument:
    position = _POSITION.search(reason)
    if position is None:
        return InvalidArgument(f"the body is not valid JSON: {reason}")
    path = path_at(raw, _offset(raw, int(position[1]), int(position[2])))
    if "recursion limit" in reason:
        return InvalidArgument("the body is nested too deeply", field=render_path(path[:1]))
    if "surrogate" in reason or "hex escape" in reason:
        reason = f"lone surrogate or incomplete \\u escape, send well-formed Unicode{position[0]}"
    elif "unicode code point" in reason:
        reason = f"not UTF-8{position[0]}"
    return InvalidArgument(f"the body is not valid JSON: {reason}", field=render_path(path))


def _offset(raw: bytes, line: int, column: int) -> int:
    start = 0
    for _ in range(line - 1):
        start = raw.index(b"\n", start) + 1
    return start + column


def _shape_error(fault: ValidationError) -> InvalidArgument:
    first, *others = fault.errors(include_url=False)
    path = [part for part in first["loc"] if part not in READINGS]
    if first["type"] == "unknown_field":
        path.append(first["ctx"]["key"])
    field = render_path(path)
    message = f"{field} {_complaint(first)}"
    if others:
        message += f"; {len(others)} more {'fault' if len(others) == 1 else 'faults'}"
    return InvalidArgument(message, field=field)


def _complaint(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return "is required"
    given = detail["input"]
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if detail["type"] == "finite_number" or (detail["type"] == "float_type" and number):
        # A number that is refused as a float is an integer of hundreds of digits.
        return "must be a finite number; NaN and Infinity are refused, a missing observation is null"
    if detail["type"] == "int_type" and number:
        return "must be a whole number; got a number with a fraction"
    if detail["type"] in _ACCEPTED:
        return f"must be {_ACCEPTED[detail['type']]}; got {kind_of(given)}"
    return detail["msg"]
