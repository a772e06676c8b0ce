"""Dataclasses to JSON and back, strictly, on the standard library alone (hosts have no pydantic).

Understood: str, int, float, bool, None, datetime (UTC, ISO 8601 with Z), tuples, dictionaries with
string keys, dataclasses, literals, and unions of dataclasses told apart by a literal field.
`Any` is passed through as it is.
"""

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from blocks.errors import PermanentError

T = TypeVar("T")

_DEEPEST = 100


class WireError(PermanentError):
    """A document does not have the shape that its dataclass says."""


def dumps(value: Any) -> str:
    """Canonical JSON on one line: sorted keys, no spaces; equal values give equal text."""
    return json.dumps(
        encode(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def loads(kind: type[T], text: str | bytes) -> T:
    """The value of type `kind` that `text` holds. Raises WireError."""
    return cast(T, decode(kind, parsed(text)))


def parsed(text: str | bytes) -> Any:
    """What JSON of any origin says. Raises WireError, also where no other use could bear its depth.

    Whatever is done with it later goes deeper than reading it.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {error}") from None
    level, depth = [document], 0
    while level := [inner for item in level for inner in _inner(item)]:
        depth += 1
        if depth > _DEEPEST:
            raise WireError(f"not JSON that is used here: more than {_DEEPEST} levels deep")
    return document


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Raise WireError for a document that does not have the shape with which it is read inside."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise WireError(f"{what}: {type(error).__name__}: {error}") from None


def _inner(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, list) else ()


def encode(value: Any) -> Any:
    """`value` as JSON types. Raises WireError for a type that has no JSON form."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, datetime):
        return _encode_time(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: encode(getattr(value, name)) for name in _fields(type(value))}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    raise WireError(f"{type(value).__name__} has no JSON form")


def decode(kind: Any, data: Any, place: str = "") -> Any:
    """The `kind` that the JSON types in `data` spell. Raises WireError, naming the place."""
    origin = typing.get_origin(kind)
    if kind is Any:
        return data
    if kind is datetime:
        return _decode_time(data, place)
    if kind in (str, int, float, bool, type(None)):
        return _decode_plain(kind, data, place)
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), data, place)
    if origin in (dict, Mapping):
        if not isinstance(data, dict):
            raise WireError(f"{_at(place)}: an object was expected")
        inner = typing.get_args(kind)[1]
        return {key: decode(inner, item, f"{place}.{key}") for key, item in data.items()}
    if origin is typing.Literal:
        if data not in typing.get_args(kind):
            raise WireError(
                f"{_at(place)}: not one of {', '.join(map(str, typing.get_args(kind)))}"
            )
        return data
    if origin in (typing.Union, types.UnionType):
        return _decode_union(typing.get_args(kind), data, place)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(cast(type, kind), data, place)
    raise WireError(f"{_at(place)}: {kind} has no JSON form")


def _decode_plain(kind: type, data: Any, place: str) -> Any:
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        try:
            return float(data)
        except OverflowError:
            raise WireError(f"{_at(place)}: no number is as large") from None
    if type(data) is not kind:
        raise WireError(f"{_at(place)}: {kind.__name__} was expected, not {type(data).__name__}")
    return data


def _decode_tuple(inner: tuple[Any, ...], data: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise WireError(f"{_at(place)}: a list was expected")
    if len(inner) == 2 and inner[1] is Ellipsis:
        return tuple(decode(inner[0], item, f"{place}[{i}]") for i, item in enumerate(data))
    if len(data) != len(inner):
        raise WireError(f"{_at(place)}: {len(inner)} entries were expected, not {len(data)}")
    return tuple(
        decode(kind, item, f"{place}[{i}]")
        for i, (kind, item) in enumerate(zip(inner, data, strict=True))
    )


def _decode_union(members: tuple[Any, ...], data: Any, place: str) -> Any:
    if data is None and type(None) in members:
        return None
    rest = [member for member in members if member is not type(None)]
    if len(rest) == 1:
        return decode(rest[0], data, place)
    if isinstance(data, dict):
        for member in rest:
            if dataclasses.is_dataclass(member) and _tags_match(cast(type, member), data):
                return decode(member, data, place)
        raise WireError(f"{_at(place)}: an unknown kind of object")
    for member in rest:
        if not dataclasses.is_dataclass(member):
            try:
                return decode(member, data, place)
            except WireError:
                continue
    raise WireError(f"{_at(place)}: a value of an unexpected type")


def _tags_match(kind: type, data: Mapping[str, Any]) -> bool:
    tags = {
        name: typing.get_args(hint)
        for name, (hint, _) in _fields(kind).items()
        if typing.get_origin(hint) is typing.Literal
    }
    return bool(tags) and all(data.get(name) in values for name, values in tags.items())


def _decode_dataclass(kind: type, data: Any, place: str) -> Any:
    if not isinstance(data, dict):
        raise WireError(f"{_at(place)}: an object was expected")
    known = _fields(kind)
    if unknown := sorted(set(data) - set(known)):
        raise WireError(f"{_at(place)}: unknown {', '.join(unknown)}")
    values = {}
    for name, (hint, required) in known.items():
        if name in data:
            values[name] = decode(hint, data[name], f"{place}.{name}")
        elif required:
            raise WireError(f"{_at(place)}: {name} is missing")
    return kind(**values)


@functools.cache
def _fields(kind: type) -> dict[str, tuple[Any, bool]]:
    """Name -> (type, required) of the fields; resolved once a class, manifests are long."""
    hints = typing.get_type_hints(kind)
    return {
        field.name: (
            hints[field.name],
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(kind)
    }


def _encode_time(value: datetime) -> str:
    if value.tzinfo is None:
        raise WireError("a time without a time zone")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _decode_time(data: Any, place: str) -> datetime:
    try:
        value = datetime.fromisoformat(data)
        if value.tzinfo is None:
            raise WireError(f"{_at(place)}: a time without a time zone")
        return value.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise WireError(f"{_at(place)}: an ISO 8601 time was expected") from None


def _at(place: str) -> str:
    return place.lstrip(".") or "document"
