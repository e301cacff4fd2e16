"""What the user may set, and what is said when that is wrong."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from flatmin.experiments.errors import BadInput, unknown

Record = TypeVar("Record", bound=BaseModel)


def parsed(settings: Iterable[str], fields: Collection[str]) -> dict[str, Any]:
    """The values of ``field=value`` settings, which are JSON or else words.

    Raises:
        BadInput: a setting has no ``=``, or its field is none of ``fields``.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise BadInput(f"--set needs FIELD=VALUE, got {setting!r}.")
        if name not in fields:
            raise BadInput(unknown("field", name, fields))
        values[name] = _value(text)
    return values


def validated(kind: type[Record], values: dict[str, Any]) -> Record:
    """A record of these values.

    Raises:
        BadInput: a value is refused; the message names the field.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as refused:
        error = refused.errors()[0]
        field = ".".join(str(part) for part in error["loc"]) or "configuration"
        message = error["msg"].removeprefix("Value error, ")
        given = f", got {error['input']!r}" if error["loc"] else ""
        raise BadInput(f"{field}: {message}{given}.") from None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
