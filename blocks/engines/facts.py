"""What an engine knows of a source: its facts, and what is read from them."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter

from blocks.evidence.record import SourceNode


@dataclass(frozen=True, slots=True)
class Peer:
    """What the source itself says that it works with: a node of its own, or a receiver of its log.

    `awaited`: commits of the source may wait for it.
    """

    name: str
    address: str
    awaited: bool


@dataclass(frozen=True, slots=True)
class Facts(ABC):
    """What an engine knows of a source. A subclass is a frozen dataclass of one engine's own.

    They are stored in the signed manifest, and read from it by `Engine.read_facts`. A subclass
    gives each field that older sets lack a default that means "not known".
    """

    @abstractmethod
    def to_json(self) -> Mapping[str, Any]:
        """The facts as plain JSON, as the manifest keeps them."""

    @abstractmethod
    def source_nodes(self) -> tuple[SourceNode, ...] | None:
        """What the source consisted of, each part by a name of its own; None: not known."""

    def peers(self) -> tuple[Peer, ...]:
        """With what the live source works, wherever that runs: cut off, it would be missed."""
        nodes = self.source_nodes() or ()
        return tuple(Peer(node.name, node.address, True) for node in nodes if node.address)


_F = TypeVar("_F", bound=Facts)


def parsed(kind: type[_F], said: Mapping[str, Any]) -> _F:
    """Facts out of plain JSON, each field of the very type that its class gives it.

    Fields that a later version has added are passed over. Raises ValueError.
    """
    return TypeAdapter(kind).validate_json(json.dumps(said), strict=True)
