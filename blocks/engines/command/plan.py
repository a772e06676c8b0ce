"""What a plan says of a system that its own commands back up and restore."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from blocks.block import Address, Directory, Port

HOURS = 24 * 3600.0


def _not_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("a command has at least a program")
    return value


Argv = Annotated[tuple[str, ...], AfterValidator(_not_empty)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceSystem(_Part):
    """The system that is backed up."""

    host: str = Field(description="Host of the source domain that takes the backup")
    address: Address
    port: Port
    version_argv: Argv = Field(description="Prints the version; the recovery side's must be equal")
    capture_argv: Argv = Field(description="Prints a consistent backup on standard output")
    bytes_argv: Argv = Field(description="Prints how many bytes a restored service will take")
    password: str | None = Field(
        default=None, description="Name, in the source's vault, of what capture_argv reads first"
    )
    anonymous_argv: Argv | None = Field(
        default=None,
        description="Uses the service without any credential: exit code 0 if the service lets it",
    )


class Question(_Part):
    """A command, and the only output that passes (blanks at both ends do not count).

    Another exit code than 0 is a failure, too.
    """

    name: str
    argv: Argv
    expected: str


class TargetSystem(_Part):
    """Where the service is restored, and by which commands."""

    host: str
    address: Address
    port: Port
    directory: Directory = Field(
        description="Must be empty or absent; made before, removed at the end"
    )
    pidfile: str = Field(description="Where restore_argv leaves the process id: {directory}/...")
    programs: tuple[str, ...] = Field(description="What the commands need: looked for at preflight")
    version_argv: Argv
    restore_argv: Argv = Field(description="Brings the service up from {backup}, then ends")
    destroy_argv: Argv = Field(description="Stops the service at once")
    password: str | None = Field(
        default=None, description="Name, in the recovery vault, of what the commands read first"
    )
    anonymous_argv: Argv | None = Field(
        default=None,
        description="As the source's: where that one is refused, this one must be, too",
    )
    verify: tuple[Question, ...] = Field(min_length=1)
    value_argv: Argv | None = Field(
        default=None, description="With a check's query behind it, prints the one answer"
    )
    recovered_until_argv: Argv | None = Field(
        default=None, description="Prints the time (ISO 8601, or seconds) of the newest transaction"
    )
    ticks_argv: Argv | None = Field(
        default=None, description="Prints the heartbeat: a line of id, tab and time for each"
    )
