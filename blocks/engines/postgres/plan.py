"""What a plan says of PostgreSQL servers: the one that is backed up, and those to restore."""

from itertools import permutations
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from blocks.block import Address, Directory, Port
from blocks.engines.postgres import config
from blocks.engines.postgres.settings import REPLAY_LIMITS
from blocks.evidence.record import Node


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceServer(_Part):
    """The server that is backed up: a primary, or a standby of it."""

    host: str = Field(
        description="Name of the host of the source domain whose psql asks the server."
    )
    address: Address = Field(description="Where that host reaches the server: IP or DNS name.")
    port: Port = Field(default=5432, description="The server's TCP port. Default: 5432.")
    bin_dir: Directory = Field(
        description="Directory of PostgreSQL's programs on that host, as in "
        "/usr/lib/postgresql/16/bin."
    )
    superuser: str = Field(
        default="postgres",
        description="Role that looks at the server. It need not be a superuser: docs/plan.md "
        "lists the rights that it needs. Default: postgres.",
    )
    password: str = Field(
        description="Name, in the source's vault, of the secret with that role's password."
    )


class BackupTool(_Part):
    """The host that takes the backup and receives the log."""

    host: str = Field(
        description="Name of the host of the source domain that runs pg_basebackup and "
        "pg_receivewal, and streams to the source's store."
    )
    bin_dir: Directory = Field(description="Directory of PostgreSQL's programs on that host.")
    role: str = Field(
        description="Role with REPLICATION that takes the backup and receives the log."
    )
    password: str = Field(
        description="Name, in the source's vault, of the secret with that role's password."
    )


class Place(_Part):
    """Where a server is restored: a host, its address, a port and directories."""

    host: str = Field(description="Name of the recovery host on which it is restored.")
    address: Address = Field(description="Address of that host on which it listens.")
    port: Port = Field(default=5432, description="TCP port on which it listens. Default: 5432.")
    bin_dir: Directory = Field(
        description="Directory of PostgreSQL's programs on that host: of the source's major "
        "version."
    )
    data_dir: Directory = Field(
        description="Data directory. It must be empty or absent, and is removed at teardown."
    )
    tablespaces: Directory | None = Field(
        default=None,
        description="Parent directory for tablespaces: required if the source has any.",
    )
    log_dir: Directory | None = Field(
        default=None,
        description="Where the log is put for replay; it must be empty or absent. Without it, "
        "next to data_dir, as DATA_DIR.farside-log.",
    )

    @property
    def log(self) -> str:
        """The directory of the log: on the filesystem of the data, unless the plan says where."""
        return self.log_dir or f"{self.data_dir.rstrip('/')}.farside-log"

    @model_validator(mode="after")
    def _has_directories_apart(self) -> "Place":
        parts = [*filter(None, (self.data_dir, self.log_dir, self.tablespaces))]
        paths = [PurePosixPath(part) for part in parts]
        for one, other in permutations(paths, 2):
            if one.is_relative_to(other):
                raise ValueError(f"data_dir, log_dir and tablespaces: {one} lies in {other}")
        return self


class TargetServer(Place):
    """Where the service is restored: the primary, and the standbys that it is to have."""

    standbys: tuple[Place, ...] = Field(
        default=(),
        description="Standbys that it is to have, each on a host of its own: restored from the "
        "store, in parallel with the primary, which they then follow. Without any, the primary "
        "stands alone.",
    )
    synchronous: bool = Field(
        default=False,
        description="Whether a commit waits for one of the standbys. Default: it does not.",
    )
    settings: dict[str, str] = Field(
        default={},
        description="Settings of postgresql.conf that the recovery site has itself: name -> "
        "value. They go before the source's. What isolates the restored server cannot be set.",
    )

    @model_validator(mode="after")
    def _has_whom_to_wait_for(self) -> "TargetServer":
        if self.synchronous and not self.standbys:
            raise ValueError("synchronous: there are no standbys to wait for")
        hosts = [place.host for place in self.places]
        if len(set(hosts)) < len(hosts):
            raise ValueError("standbys: every server has a host of its own")
        return self

    @property
    def places(self) -> tuple[Place, ...]:
        """All of them, the primary first."""
        return (self, *self.standbys)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """What a restore makes of them."""
        primary, *others = self.places
        return (
            Node(primary.host, "primary", primary.address, primary.port),
            *(Node(place.host, "standby", place.address, place.port) for place in others),
        )

    @field_validator("settings")
    @classmethod
    def _leaves_isolation_alone(cls, given: dict[str, str]) -> dict[str, str]:
        # The server reads names without regard to case, and of two the last one.
        value = {name.lower(): text for name, text in given.items()}
        if len(value) < len(given):
            raise ValueError("a setting is there twice, by names that differ in case only")
        if taken := sorted(set(value) & set(config.ISOLATION)):
            raise ValueError(f"farside isolates the restored server: it sets {', '.join(taken)}")
        for name in set(value) & set(REPLAY_LIMITS):
            if not value[name].isdecimal():
                raise ValueError(f"{name} is a number")
        return value


class Application(_Part):
    """The role by which the application connects; its password is in the recovery vault."""

    role: str = Field(description="Role as which the application logs in.")
    database: str = Field(description="Database in which it works.")
    password: str = Field(
        description="Name, in the recovery domain's vault, of the secret with the role's password."
    )
    write: str | None = Field(
        default=None,
        description="A harmless statement by which the application writes, committed in the "
        "restored database. Without it, only farside's own write is tried.",
    )
