"""Columns of pandas frames: name, dtype, and what each is of a row."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

import pandas as pd

_Row = TypeVar("_Row", contravariant=True)
Dtype = Callable[[Sequence[Any]], "pd.Series[Any]"]
"""Makes a series of values, of one dtype however many there are; None is a missing value."""


@dataclass(frozen=True, slots=True)
class Column(Generic[_Row]):
    """A column of a frame: `get` yields its value of a row."""

    name: str
    dtype: Dtype
    get: Callable[[_Row], Any]


def frame(columns: Sequence[Column[_Row]], rows: Iterable[_Row]) -> pd.DataFrame:
    """The frame of the rows; of none it has the same columns and dtypes."""
    kept = list(rows)
    return pd.DataFrame(
        {item.name: item.dtype([item.get(row) for row in kept]) for item in columns}
    )


def _of(dtype: Any) -> Dtype:
    def column(values: Sequence[Any]) -> "pd.Series[Any]":
        series: pd.Series[Any] = pd.Series(values, dtype=dtype)
        return series

    return column


TEXT = _of("string")
COUNT = _of("Int64")
NUMBER = _of("Float64")
FLAG = _of("boolean")
TIME = _of("datetime64[us, UTC]")
DAY = _of("datetime64[s]")
DURATION = _of("timedelta64[us]")


def one_of(values: type[StrEnum]) -> Dtype:
    """In the order of the enumeration."""
    return _of(pd.CategoricalDtype([value.value for value in values], ordered=True))


def category(values: Sequence[Any]) -> "pd.Series[Any]":
    """Whatever values there are, without an order."""
    known = sorted({value for value in values if value is not None})
    return pd.Series(values, dtype=pd.CategoricalDtype(known))


def ordered(first: Sequence[str]) -> Dtype:
    """In the order of `first`; other values come after."""

    def column(values: Sequence[Any]) -> "pd.Series[Any]":
        known = list(dict.fromkeys([*first, *values]))
        return pd.Series(values, dtype=pd.CategoricalDtype(known, ordered=True))

    return column
