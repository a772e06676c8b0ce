"""Frozen dataclasses that are made in a tenth of the time.

`dataclasses` compiles six functions for each class. What a job says and is told are 59 classes:
that took longer than all else that a job does before it begins.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool, slots: bool, kw_only: bool) -> Callable[[type], type]:
        """As `dataclasses.dataclass` with these three, which have to be true."""
        assert (frozen, slots, kw_only) == (True, True, True)

        def made(kind: type) -> type:
            for name, shared in _SHARED.items():
                setattr(kind, name, shared)
            return dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=True)(kind)

        return made


def _init(self: Any, **given: Any) -> None:
    known = self.__dataclass_fields__
    if wrong := given.keys() - known.keys():
        raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(wrong))}")
    for name, field in known.items():
        if name not in given:
            if field.default is not dataclasses.MISSING:
                given[name] = field.default
            elif field.default_factory is not dataclasses.MISSING:
                given[name] = field.default_factory()
            else:
                raise TypeError(f"{type(self).__name__} needs {name}")
    self.__dict__.update(given)


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name in self.__dataclass_fields__)


def _repr(self: Any) -> str:
    shown = (f for f in self.__dataclass_fields__.values() if f.repr)
    return (
        f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"
    )


def _eq(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _frozen(self: Any, name: str, *_value: Any) -> NoReturn:  # noqa: ARG001 (Python's own)
    raise dataclasses.FrozenInstanceError(f"cannot assign to or delete {name}")


_SHARED = {
    "__init__": _init,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _frozen,
    "__delattr__": _frozen,
}
