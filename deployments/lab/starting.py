"""Starts services that do not run, and says so."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from deployments.lab import processes
from deployments.lab.accounts import Account
from deployments.lab.places import Places
from deployments.lab.processes import Service

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Starter:
    """Starts a lab's services as their account; `say` is told what is being done."""

    places: Places
    account: Account
    say: Say

    def start(self, *wanted: Service) -> list[Service]:
        """Start those that do not run, and return them."""
        missing = [s for s in wanted if processes.running(self.places, s.name) is None]
        for service in missing:
            processes.start(self.places, service, self.account)
        return missing

    def announce(self, started: Iterable[Service]) -> None:
        """Say what was started, if anything."""
        if names := [service.name for service in started]:
            self.say(f"starting {', '.join(names)}")

    def wait(self, *services: Service) -> None:
        """Wait until all do their work. Raises PermanentError for one that has stopped."""
        processes.wait_ready(self.places, services)

    def restart(self, *writers: Service) -> None:
        """End writers whose database has died: those that lost their connections start again."""
        for writer in writers:
            processes.kill_service(self.places, writer.name)
