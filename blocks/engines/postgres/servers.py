"""The restored servers of a plan, and how they are reached."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from blocks.domain import FailureDomain
from blocks.engines.postgres.plan import Application, Place, TargetServer
from blocks.engines.postgres.psql import Psql
from blocks.engines.postgres.sessions import UNHURRIED, UNHURRIED_LATER
from blocks.hosts.host import Host
from blocks.hosts.process import Completed
from blocks.remote.jobs import bears_stamp

RESTART_SECONDS = 600.0
"""Time limit for a server to stop or to start, once it has served."""
END_SECONDS = 120.0
"""Time limit for a server to stop as in a crash."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Restored servers: the primary, and its standbys."""

    recovery: FailureDomain
    target: TargetServer
    application: Application
    sockets: Mapping[str, str]
    """Host -> the directory of its server's private socket."""
    superuser: str
    major: int
    """Their major version."""

    def control(self, place: Place | None = None) -> Psql:
        """A superuser's sessions of one of them, the primary by default, by its private socket."""
        place = place or self.target
        return Psql(
            self.recovery.host(place.host),
            place.bin_dir,
            self.sockets[place.host],
            place.port,
            self.superuser,
            # What sessions of a database are made to load may be missing here.
            options=f"{UNHURRIED} -c session_preload_libraries=",
            major=self.major,
        ).entering(self.application.database)

    def applications(self, place: Place) -> Psql:
        """The application's sessions of one of them, with the recovery vault's password."""
        app, host = self.application, self.recovery.host(place.host)
        password = self.recovery.secret(app.password)
        return Psql(host, place.bin_dir, place.address, place.port, app.role, password, options="")

    def unhurried(self) -> Psql:
        """The application's sessions of the primary, without limits of time.

        Whatever code of users' a question runs, it runs as the application: no administrator is
        there.
        """
        return replace(self.applications(self.target), preamble=UNHURRIED_LATER)


def pg_ctl(
    host: Host, place: Place, action: str, seconds: float, *options: str, check: bool = True
) -> Completed:
    """Have pg_ctl do something, and wait for it: by itself it gives up after a minute."""
    argv = [f"{place.bin_dir}/pg_ctl", "-D", place.data_dir, "-w", "-s", *options]
    return host.run([*argv, "-t", f"{seconds:.0f}", action], check=check, timeout=seconds)


def end(host: Host, place: Place, rehearsal_id: str) -> None:
    """Stop a rehearsal's server as a crash would; another's that lies there now, never."""
    if bears_stamp(host, place.data_dir, rehearsal_id):
        pg_ctl(host, place, "stop", END_SECONDS, "-m", "immediate", check=False)
