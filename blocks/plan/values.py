"""Durations, rates, sizes and days, as plans and options write them."""

import re
from datetime import date, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, ByteSize, PlainSerializer, TypeAdapter, WithJsonSchema

from blocks.artifact.age.keys import parse_recipient
from blocks.artifact.manifest import key_id
from blocks.engines.registry import catalogue

_DURATION = re.compile(r"(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:(\d+(?:\.\d+)?)s)?")
# ByteSize alone would read 1.5.2GB as one byte, 20GB/s as a size, and 20 without a unit.
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*((?:[kKMGT]i?)?)(bit/s|bps|B/s)")
_SELECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:[kKMGT]i?)?B")
_BYTES = TypeAdapter(ByteSize)


def parse_duration(value: object) -> object:
    """`90s`, `15m`, `1h30m` as a timedelta; numbers are not accepted: they hide their unit."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(str(value).strip()) if isinstance(value, str) else None
    if match is None or not any(match.groups()):
        raise ValueError("a duration is written like 90s, 15m or 1h30m")
    hours, minutes, seconds = match.groups()
    return timedelta(hours=int(hours or 0), minutes=int(minutes or 0), seconds=float(seconds or 0))


def parse_rate(value: object) -> object:
    """`50Mbit/s` or `20MB/s` as bytes a second; `20MiB/s` is of binary multiples."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _RATE.fullmatch(str(value).strip()) if isinstance(value, str) else None
    if match is None or float(match[1]) <= 0:
        raise ValueError("a rate is written like 50Mbit/s or 20MB/s, and is above zero")
    number, multiple, unit = match.groups()
    return max(1, _BYTES.validate_python(f"{number}{multiple}{'B' if unit == 'B/s' else 'bit'}"))


def parse_size(value: object) -> object:
    """`2TB` or `500GB` as bytes; `500GiB` is of binary multiples."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(str(value).strip()) if isinstance(value, str) else None
    if match is None or float(match[1]) <= 0:
        raise ValueError("a size is written like 500GB or 2TB, and is above zero")
    return int(_BYTES.validate_python(match[0]))


def parse_selection(value: object) -> object:
    """`fresh`, `latest`, `oldest`, `random`, or what can be the id of a set."""
    if isinstance(value, str) and _SELECTION.fullmatch(value):
        return value
    raise ValueError("fresh, latest, oldest, random, or the id of a set")


def parse_day(value: object) -> object:
    """`2027-03-31` as a date; a time of day is not accepted, for the whole day counts."""
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise ValueError("a day is written like 2027-03-31") from None


def parse_finding(value: object) -> object:
    """The id of a finding in the catalogue."""
    if isinstance(value, str) and value in catalogue():
        return value
    raise ValueError(f"no finding is called {value!r}; see docs/reference/findings.md")


def _schema(text: re.Pattern[str], example: str) -> WithJsonSchema:
    """What editors and Prefect's forms take: a number, or a text with its unit."""
    written = {"type": "string", "pattern": f"^{text.pattern}$", "examples": [example]}
    return WithJsonSchema({"anyOf": [written, {"type": "integer"}]})


def _checked(parse: Any) -> BeforeValidator:
    def check(value: object) -> object:
        if not isinstance(value, str):
            raise ValueError("text expected")
        try:
            parse(value)
        except Exception as error:  # noqa: BLE001 (a parser may raise anything; pydantic wants a ValueError)
            raise ValueError(str(error)) from None
        return value

    return BeforeValidator(check)


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(lambda value: f"{value.total_seconds():.3f}s", return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["15m"]}),
]
Rate = Annotated[int, BeforeValidator(parse_rate), _schema(_RATE, "50MB/s")]
Size = Annotated[int, BeforeValidator(parse_size), _schema(_SIZE, "500GB")]
Recipient = Annotated[str, _checked(parse_recipient)]
Signer = Annotated[str, _checked(key_id)]
