"""Runs a plan's commands: their words filled in, the password on standard input alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import SecretStr

from blocks.agent.redaction import without
from blocks.domain import FailureDomain
from blocks.engines.command.plan import TargetSystem
from blocks.hosts.host import Host
from blocks.hosts.process import NOT_RUN, CommandFailed


@dataclass(frozen=True, slots=True)
class TargetCommands:
    """The commands of a plan's target; `work` is the rehearsal's directory on its host."""

    target: TargetSystem
    recovery: FailureDomain
    work: str

    @property
    def host(self) -> Host:
        """The host on which they run."""
        return self.recovery.host(self.target.host)

    def run(self, argv: Sequence[str], seconds: float = 600.0) -> str:
        """What one of the plan's commands prints. Raises as `Host.run`."""
        password = password_of(self.recovery, self.target.password)
        words = self.filled(argv)
        return self.host.run(words, password=password, timeout=seconds).text.strip()

    def filled(self, argv: Sequence[str]) -> list[str]:
        """The words of a command, filled in."""
        return filled(self.target, argv, self.work, self.target.directory)


def filled(target: TargetSystem, argv: Sequence[str], work: str, directory: str) -> list[str]:
    """The words of a command, for a directory of the rehearsal's and one of the service's."""
    values = {
        "{backup}": f"{work}/backup",
        "{directory}": directory,
        "{address}": target.address,
        "{port}": str(target.port),
        "{work}": work,
    }
    words = list(argv)
    for name, value in values.items():
        words = [word.replace(name, value) for word in words]
    return words


def password_of(domain: FailureDomain, name: str | None) -> SecretStr | None:
    """The password of that name; None without a name."""
    return domain.secret(name) if name else None


def told(said: str, password: SecretStr | None) -> str:
    """What a command printed, without the password that it was given."""
    return without(said.encode(), password.get_secret_value()).decode() if password else said


def refused(error: CommandFailed) -> str:
    """What a command said that answered by an exit code of its own.

    Raises the error where there is no such command, or it was killed: that is no answer.
    """
    if error.exit_code in NOT_RUN or error.exit_code < 0:
        raise error
    return error.message


def lets_in(host: Host, argv: Sequence[str]) -> bool:
    """Whether a command that shows no credential ends well. Raises as `refused`."""
    try:
        host.run(argv)
    except CommandFailed as error:
        refused(error)
        return False
    return True


def moment(text: str) -> datetime:
    """A time as ISO 8601 or in seconds. Raises ValueError, OverflowError, OSError."""
    if text.replace(".", "", 1).isdecimal():
        return datetime.fromtimestamp(float(text), UTC)
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
