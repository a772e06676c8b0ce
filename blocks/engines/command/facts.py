"""What a plan's commands say of the source."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from typing_extensions import override

from blocks.engines.facts import Facts, parsed
from blocks.errors import PermanentError
from blocks.evidence.record import SourceNode


@dataclass(frozen=True, slots=True)
class CommandFacts(Facts):
    """The version, a line of text, and the size in bytes.

    `open`: whether a client without credentials is let in; None where it was not tried.
    """

    version: str
    bytes: int
    system: str = ""
    nodes: tuple[SourceNode, ...] | None = None
    open: bool | None = None

    @override
    def to_json(self) -> Mapping[str, Any]:
        return asdict(self)

    @override
    def source_nodes(self) -> tuple[SourceNode, ...] | None:
        return self.nodes


def own(facts: Facts) -> CommandFacts:
    """The facts, which this engine has read."""
    assert isinstance(facts, CommandFacts)
    return facts


def read(said: Mapping[str, Any]) -> CommandFacts:
    """The facts of a manifest. Raises PermanentError where the command engine never says so."""
    try:
        facts = parsed(CommandFacts, said)
    except ValueError:
        facts = None
    if facts is None or not is_line(facts.version):
        raise PermanentError(
            "the facts of the source are no version and size: "
            f"{str(said.get('version', 'no version'))[:80]!r}",
            operation="facts of the source",
            hint="find out who changed what the source says of itself",
        )
    return facts


def is_line(text: str) -> bool:
    """Whether a text is one line that can be shown."""
    return 0 < len(text) <= 500 and text.isprintable()
