"""Every engine, found as a package of this folder, with the findings that it brings."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from inspect import isabstract
from typing import Annotated, Any, Union

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    SerializeAsAny,
    TypeAdapter,
)
from pydantic.json_schema import JsonSchemaValue
from typing_extensions import TypeAliasType

from blocks.engines.common.programs import COMMON
from blocks.engines.engine import Engine
from blocks.evidence.catalogue import LOADED, Assumption, Category


@cache
def engines() -> Mapping[str, type[Engine]]:
    """All engines by label: every package of this folder is asked, and its `findings`, if any."""
    import blocks.engines as folder

    for module in pkgutil.iter_modules(folder.__path__):
        name = f"blocks.engines.{module.name}"
        if module.ispkg:
            importlib.import_module(name)
            if find_spec(f"{name}.findings"):
                importlib.import_module(f"{name}.findings")
    found = {cls.label: cls for cls in Engine.__subclasses__() if not isabstract(cls)}
    return dict(sorted(found.items()))  # whatever was imported first


def catalogue() -> Mapping[str, Assumption]:
    """Every assumption that farside knows, by id: the general ones and those of all engines."""
    engines()
    order = list(Category)
    return dict(sorted(LOADED.items(), key=lambda item: order.index(item[1].category)))


@cache
def version_words() -> Mapping[str, str]:
    """Programs that may be run for their version, and the word that asks each: of all engines.

    A plan's own commands may use another engine's.
    """
    return dict(COMMON) | {
        name: word for engine in engines().values() for name, word in engine.version_words.items()
    }


def engine_of(value: object) -> Engine:
    """The engine that a plan's `engine` part describes: `kind` chooses the class."""
    if isinstance(value, Engine):
        return value
    kind = value.get("kind") if isinstance(value, Mapping) else None
    known = engines()
    if kind not in known:
        raise ValueError(f"kind must be one of: {', '.join(sorted(known))}")
    return known[str(kind)].model_validate(value)


@dataclass(frozen=True, slots=True)
class _OneOfThem:
    """Lets the JSON schema of a plan list every engine, and not what they have in common."""

    def __get_pydantic_json_schema__(
        self,
        _schema: Any,
        handler: GetJsonSchemaHandler,
    ) -> JsonSchemaValue:
        union: Any = Union[tuple(engines().values())]  # noqa: UP007 (which they are is known here)
        adapter = TypeAdapter(Annotated[union, Field(discriminator="kind")])
        return handler(adapter.core_schema)


AnyEngine = TypeAliasType(
    "AnyEngine", Annotated[SerializeAsAny[Engine], BeforeValidator(engine_of), _OneOfThem()]
)
"""Any kind of engine, told apart by `kind`.

An alias by name, which Prefect does not look into: it would register the contract as a block.
"""
