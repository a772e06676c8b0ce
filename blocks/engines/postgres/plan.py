"""What a plan says of PostgreSQL servers: the one that is backed up, and those to restore."""

from itertools import permutations
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from blocks.block import Address, Directory, Port
from blocks.engines.postgres import config
from blocks.engines.postgres.settings import REPLAY_LIMITS


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceServer(_Part):
    """The server that is backed up: a primary, or a standby of it."""

    host: str = Field(description="Host of the source domain whose psql asks the server")
    address: Address
    port: Port = 5432
    bin_dir: Directory
    superuser: str = Field(
        default="postgres",
        description="Role that looks at the server; see docs/plan.md for its rights",
    )
    password: str = Field(description="Name of that role's password in the source's vault")


class BackupTool(_Part):
    """The host that takes the backup and receives the log."""

    host: str
    bin_dir: Directory
    role: str = Field(description="A role with REPLICATION")
    password: str = Field(description="Name of its password in the source's vault")


class Place(_Part):
    """Where a server is restored: a host, its address, a port and directories."""

    host: str
    address: Address
    port: Port = 5432
    bin_dir: Directory
    data_dir: Directory = Field(description="Must be empty or absent")
    tablespaces: Directory | None = Field(
        default=None, description="Parent directory for tablespaces; required if the source has any"
    )
    log_dir: Directory | None = Field(
        default=None,
        description="Where the log is put for replay; must be empty or absent. Without it, next to"
        " data_dir, as DATA_DIR.farside-log",
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
        default=(), description="Restored from the store beside the primary, which they then follow"
    )
    synchronous: bool = Field(
        default=False, description="Whether a commit waits for one of the standbys"
    )
    settings: dict[str, str] = Field(
        default={},
        description="The recovery site's own server settings; they go before the source's",
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

    role: str
    database: str
    password: str
    write: str | None = Field(default=None, description="A harmless write of the application's")
