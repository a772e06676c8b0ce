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

    host: str = Field(
        description="Name of the host of the source domain on which the commands run."
    )
    address: Address = Field(
        description="Where the system answers: IP or DNS name. Nothing may answer there once the "
        "source is lost."
    )
    port: Port = Field(description="TCP port on which it answers.")
    version_argv: Argv = Field(
        description="Command that prints the system's version as one line; the recovery side's "
        "must be equal."
    )
    capture_argv: Argv = Field(
        description="Command that prints a consistent backup on standard output."
    )
    bytes_argv: Argv = Field(
        description="Command that prints how many bytes the restored service will take: a number."
    )
    password: str | None = Field(
        default=None,
        description="Name, in the source's vault, of the secret that capture_argv and bytes_argv "
        "read as the first line of their input. Without it, they read none.",
    )
    anonymous_argv: Argv | None = Field(
        default=None,
        description="Command that uses the system without any credential, and ends with exit code "
        "0 if the system lets it. Without it, who is let in is not compared.",
    )


class Question(_Part):
    """A command, and the only output that passes (blanks at both ends do not count).

    Another exit code than 0 is a failure, too.
    """

    name: str = Field(description="What the record calls this check.")
    argv: Argv = Field(
        description="Command that asks the restored service; exit code 0 if it could."
    )
    expected: str = Field(
        description="The only output that passes; blanks at both ends do not count."
    )


class TargetSystem(_Part):
    """Where the service is restored, and by which commands."""

    host: str = Field(description="Name of the recovery host on which it is restored.")
    address: Address = Field(description="Address of that host on which it is to listen.")
    port: Port = Field(description="TCP port on which it is to listen.")
    directory: Directory = Field(
        description="The service's directory. It must be empty or absent; farside makes it before "
        "the restore and removes it at teardown."
    )
    pidfile: str = Field(
        description="File in which restore_argv leaves the service's process id, as in "
        "{directory}/redis.pid."
    )
    programs: tuple[str, ...] = Field(
        description="Programs that the commands need; preflight looks for them on the host."
    )
    version_argv: Argv = Field(
        description="Command that prints the version of the recovery side's programs, as the "
        "source's version_argv does."
    )
    restore_argv: Argv = Field(
        description="Command that brings the service up from {backup}, in {directory}, at "
        "{address} and {port}, and then ends."
    )
    destroy_argv: Argv = Field(description="Command that stops the service at once.")
    password: str | None = Field(
        default=None,
        description="Name, in the recovery domain's vault, of the secret that each command reads "
        "as the first line of its input. Without it, they read none.",
    )
    anonymous_argv: Argv | None = Field(
        default=None,
        description="Command that uses the service without any credential. Where the source's is "
        "refused, this one must be, too. Without it, who is let in is not compared.",
    )
    verify: tuple[Question, ...] = Field(
        min_length=1,
        description="Commands that ask the restored service, each with its only answer.",
    )
    value_argv: Argv | None = Field(
        default=None,
        description="Command that prints the one answer to a query, which is appended to it: for "
        "the plan's checks and secrets. Without it, they could not run.",
    )
    recovered_until_argv: Argv | None = Field(
        default=None,
        description="Command that prints the time of the newest transaction in the restored data, "
        "as ISO 8601 or in seconds since 1970. Without it, the recovery point is not known.",
    )
    ticks_argv: Argv | None = Field(
        default=None,
        description="Command that prints the rows of the heartbeat: id, tab and time, a line "
        "each. A plan with a heartbeat needs it.",
    )
