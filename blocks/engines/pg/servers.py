"""What a plan says of PostgreSQL servers: the one that is backed up, and those to restore."""

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from blocks.engines.pg import config


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceServer(_Part):
    """The server that is backed up: a primary, or a standby of it."""

    host: str = Field(description="Host of the source domain whose psql asks the server")
    address: str
    port: int = 5432
    bin_dir: str
    superuser: str = "postgres"
    password: str = Field(description="Name of the superuser's password in the source's vault")


class BackupTool(_Part):
    """The host that takes the backup and receives the log."""

    host: str
    bin_dir: str
    role: str = Field(description="A role with REPLICATION")
    password: str = Field(description="Name of its password in the source's vault")


class Place(_Part):
    """Where a server is restored: a host, its address, a port and directories."""

    host: str
    address: str
    port: int = 5432
    bin_dir: str
    data_dir: str = Field(description="Must be empty or absent")
    tablespaces: str | None = Field(
        default=None, description="Parent directory for tablespaces; required if the source has any"
    )


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
    def _leaves_isolation_alone(cls, value: dict[str, str]) -> dict[str, str]:
        if taken := sorted(set(value) & set(config.ISOLATION)):
            raise ValueError(f"farside isolates the restored server: it sets {', '.join(taken)}")
        for name in set(value) & set(config.REPLAY_LIMITS):
            if not value[name].isdecimal():
                raise ValueError(f"{name} is a number")
        return value


class Application(_Part):
    """The role by which the application connects; its password is in the recovery vault."""

    role: str
    database: str
    password: str
    write: str | None = Field(default=None, description="A harmless write of the application's")
