"""Small servers of PostgreSQL without a lab, for what must be shown on a real one."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from blocks.engines.postgres.facts import Database, PostgresFacts
from blocks.engines.postgres.psql import Psql
from blocks.engines.postgres.sessions import UNHURRIED
from blocks.hosts.local import LocalHost
from deployments.lab.accounts import service_account
from deployments.lab.parts import postgres
from deployments.lab.places import Places
from tests.blocks.engines.worlds import DEBIAN_BIN, need_debian_15
from tests.servers import exclusive, free_port


@cache
def bin_dir(major: int) -> str:
    """The programs of a version, where the services' account may enter."""
    if major == 15:
        need_debian_15()
        return DEBIAN_BIN.format(15)
    with exclusive() as folder:
        places = Places(folder / "postgresql")
        if not places.root.exists():
            places.root.mkdir(mode=0o755)
            postgres.PART.install(places, "east", service_account())
    return str(postgres.programs(places, "east", major))


@dataclass(frozen=True, slots=True)
class Server:
    """A server that trusts whoever connects from this machine."""

    bin_dir: str
    folder: Path
    port: int

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.folder / "data"

    def psql(self, role: str = "postgres", options: str = UNHURRIED) -> Psql:
        """A role's sessions."""
        host = LocalHost(name="here", work_dir=str(self.folder / "work"))
        return Psql(host, self.bin_dir, "127.0.0.1", self.port, role, options=options)

    def run(self, sql: str, database: str = "postgres", role: str = "postgres") -> str:
        """Statements as any client runs them; what they printed."""
        return self.psql(role, "").script(database, sql).strip()

    def ctl(self, *words: str) -> None:
        """Have pg_ctl do something."""
        argv = [f"{self.bin_dir}/pg_ctl", "-D", str(self.data), "-w", "-s", *words]
        subprocess.run(
            [*argv, "-l", str(self.folder / "log")],
            check=True,
            cwd="/",
            timeout=120,
            **service_account().identity,
        )

    def set(self, restart: bool = True, **settings: str) -> None:
        """Change settings of the server."""
        for name, value in settings.items():
            quoted = value.replace("'", "''")
            self.run(f"ALTER SYSTEM SET {name} = '{quoted}'")
        if restart:
            self.ctl("restart", "-m", "fast")
        else:
            self.run("SELECT pg_reload_conf()")


@contextmanager
def server(major: int = 15, *lines: str, encoding: str = "UTF8") -> Iterator[Server]:
    """A server with further lines of configuration; all of it goes at the end."""
    account, programs = service_account(), bin_dir(major)
    folder = Path(tempfile.mkdtemp(prefix="farside-server-", dir="/var/tmp"))
    account.own(folder)
    made = Server(programs, folder, free_port())
    initdb = [f"{programs}/initdb", "-D", str(made.data), "-U", "postgres", "--no-sync", "-k"]
    locale = "C.UTF-8" if (major, encoding) == (15, "UTF8") else "C"
    initdb += [f"--locale={locale}", f"--encoding={encoding}"]
    try:
        subprocess.run(
            [*initdb, "--auth=trust"], check=True, cwd="/", capture_output=True, **account.identity
        )
        conf = (
            f"listen_addresses = '127.0.0.1'\nport = {made.port}\nunix_socket_directories = ''\n"
            "dynamic_shared_memory_type = mmap\nshared_buffers = 16MB\nmax_connections = 40\n"
            "fsync = off\n"
        )
        with (made.data / "postgresql.conf").open("a") as file:
            file.write(conf + "\n".join(lines) + "\n")
        made.ctl("start")
        yield made
    finally:
        with suppress(subprocess.CalledProcessError):
            made.ctl("stop", "-m", "immediate")
        shutil.rmtree(folder, ignore_errors=True)


def streams(made: Server) -> bool:
    """Whether a standby streams, once it has had time to begin."""
    for _ in range(100):
        if made.run("SELECT status FROM pg_stat_wal_receiver") == "streaming":
            return True
        time.sleep(0.1)
    return False


@contextmanager
def standby(primary: Server) -> Iterator[Server]:
    """A standby of a server, on the next port that is free."""
    with server() as made:
        made.ctl("stop", "-m", "immediate")
        shutil.rmtree(made.data)
        argv = [f"{made.bin_dir}/pg_basebackup", "-h", "127.0.0.1", "-p", str(primary.port)]
        argv += ["-U", "postgres", "-D", str(made.data), "-R", "-c", "fast", "-X", "stream"]
        subprocess.run(argv, check=True, cwd="/", timeout=120, **service_account().identity)
        with (made.data / "postgresql.auto.conf").open("a") as file:
            file.write(f"port = {made.port}\n")
        made.ctl("start")
        yield made


def bare(*names: str) -> list[Database]:
    """Databases of which nothing but their names is known."""
    return [Database(name=name, bytes=0, extensions=()) for name in names]


def database(facts: PostgresFacts, name: str) -> Database:
    """What a survey says of a database."""
    (found,) = (item for item in facts.databases if item.name == name)
    return found
