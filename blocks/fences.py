"""Fences: make the source domain unreachable, show who still calls there, lift it again."""

from abc import abstractmethod
from datetime import UTC, datetime
from typing import ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from blocks.base import DomainPart
from blocks.errors import PermanentError
from blocks.evidence.uses import ORCHESTRATOR
from blocks.hosts import LocalHost


class FenceBroken(PermanentError):
    """The fence's commands do not answer as they must."""


class Attempt(BaseModel):
    """A connection to the source that was caught after the declaration."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: AwareDatetime
    host: str
    address: str
    port: int
    pid: int | None = None
    process: str | None = None


class Fence(DomainPart):
    """Cuts the source domain off."""

    @abstractmethod
    def cut(self) -> datetime:
        """Lose the source now; returns the declaration's time (UTC), taken before anything is done.

        Cutting what is cut already does no harm. Raises FarsideError when it cannot be done.
        """

    @abstractmethod
    def lift(self) -> None:
        """Undo `cut`; without effect where nothing is cut. Raises FarsideError."""

    @abstractmethod
    def attempts(self) -> list[Attempt]:
        """Who called the source since `cut`, oldest first; empty where the fence cannot tell."""


class CommandFence(Fence):
    """A fence made of the site's own commands, run by farside where it runs itself."""

    _block_type_name: ClassVar[str | None] = "farside command fence"
    _block_type_slug: ClassVar[str | None] = "farside-command-fence"
    _description: ClassVar[str | None] = "Cuts a failure domain off with the site's own commands."

    kind: Literal["command"] = Field(default="command", description="A fence made of commands")
    raise_argv: list[str] = Field(
        min_length=1, description="Command that makes the source unreachable; may run twice"
    )
    lift_argv: list[str] = Field(
        min_length=1, description="Command that undoes it; may run where nothing is cut"
    )
    observe_argv: list[str] = Field(
        default=[],
        description="Command that prints the attempts caught, a JSON object on each line: at, "
        "host, address, port, and pid and process where known",
    )
    timeout_seconds: float = Field(
        default=60.0, gt=0, description="Time limit of each command, in seconds"
    )

    def cut(self) -> datetime:
        """See Fence."""
        at = datetime.now(UTC)
        self._run(self.raise_argv)
        return at

    def lift(self) -> None:
        """See Fence."""
        self._run(self.lift_argv)

    def attempts(self) -> list[Attempt]:
        """See Fence."""
        if not self.observe_argv:
            return []
        lines = self._run(self.observe_argv).splitlines()
        return sorted((_attempt(line) for line in lines if line), key=lambda attempt: attempt.at)

    def _run(self, argv: list[str]) -> str:
        here = LocalHost(name="fence")
        here.join(ORCHESTRATOR)
        return here.run(argv, timeout=self.timeout_seconds).text


def _attempt(line: str) -> Attempt:
    try:
        return Attempt.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise FenceBroken(
            f"observe_argv printed {line[:200]!r}: {field}: {first['msg']}",
            operation="fence",
            hint="it must print a JSON object a line with at, host, address and port",
        ) from None


AnyFence = CommandFence
"""Any kind of fence, told apart by `kind`."""
