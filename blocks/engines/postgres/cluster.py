"""A data directory on a recovery host, from its making to a server that is ready."""

import re
import secrets
import shlex
import time
from collections.abc import Mapping

from blocks.agent import stamp
from blocks.agent.protocol.parts import FileTarget, OpenItem, TarTarget
from blocks.agent.redaction import redacted
from blocks.artifact.manifest import SealedObject
from blocks.engines.postgres import config
from blocks.engines.postgres.sessions import ALONE
from blocks.engines.postgres.wal import parse_lsn
from blocks.engines.restoration import Restoration
from blocks.errors import PermanentError
from blocks.evidence.record import Check, CheckStatus
from blocks.hosts.host import Host

_LINKS = "pg_tblspc/[0-9]+"
"""The only links that `pg_basebackup` sends. The restore makes its own."""
START_SECONDS = 6 * 3600.0
"""Time limit for replaying the log."""
_BEGINS = re.compile(r"START WAL LOCATION: ([0-9A-F]{1,8}/[0-9A-F]{1,8}) ")
DEAD_SECONDS = 10.0
"""A server without a process for so long has not merely not begun."""

_COMPARE_SIZES = """
import json, os, sys
os.chdir(sys.argv[1])
files = json.load(open("backup_manifest"))["Files"]
bad = [f["Path"] for f in files if f["Path"] != "tablespace_map"
       and not (os.path.isfile(f["Path"]) and os.path.getsize(f["Path"]) == f["Size"])]
sys.exit("missing or of another size: " + ", ".join(bad[:10]) if bad or not files else 0)
"""
_READY = re.compile(r"database system is ready to accept (read-only )?connections")
_REPLAYED = re.compile(r"redo done at|archive recovery complete|redo is not required")
_ENDED = re.compile(r"redo done at ([0-9A-F]+/[0-9A-F]+)")
_DIED = re.compile(r"^.*(?:FATAL|PANIC):.*$", re.MULTILINE)
_STARTING = re.compile(r"FATAL:  the database system is ")
"""The answer to a connection attempt while the server starts."""
_SAID = re.compile(r"^.*(?:FATAL|PANIC|ERROR|LOG|DETAIL|HINT|CONTEXT):.*$", re.MULTILINE)


class Cluster:
    """A cluster that is being restored; its methods are called in the order in which they stand.

    `archive` is where its log is put, `spaces` are its tablespaces: oid -> directory.
    """

    def __init__(  # noqa: PLR0913 (each is a place on the host)
        self,
        using: Restoration,
        host: Host,
        bin_dir: str,
        data_dir: str,
        archive: str,
        spaces: Mapping[str, str],
    ) -> None:
        self.host = host
        self.data_dir = data_dir
        self._using = using
        self._bin = bin_dir
        self._spaces = spaces
        self.archive = archive
        self._log = f"{using.work(host)}/postgres.log"

    @property
    def restore_command(self) -> str:
        """How the server gets the log that `fetch` brought; a % of the path's own is doubled."""
        return f"cp {shlex.quote(self.archive).replace('%', '%%')}/%f %p"

    def prepare(self, address: str, port: int) -> str:
        """Take its directories and its port; returns the directory of the socket.

        Raises TargetOccupied, and changes nothing, where one is not free.
        """
        host = self.host
        # In /tmp, for the path of a socket must be short.
        socket_dir = f"/tmp/farside-{secrets.token_hex(4)}"
        directories = [self.data_dir, self.archive, *self._spaces.values(), socket_dir]
        self._using.reader.claim(host, directories, [(address, port)], ended_by="SIGQUIT")
        return socket_dir

    def fetch(self, log: Mapping[str, SealedObject]) -> int:
        """Bring base and log; returns the bytes read from the store."""
        places: dict[str, TarTarget | FileTarget] = {
            "base.tar.zst.age": TarTarget(directory=self.data_dir, left_out=_LINKS),
            "backup_manifest.zst.age": FileTarget(path=f"{self.data_dir}/backup_manifest"),
        }
        for oid, directory in self._spaces.items():
            places[f"{oid}.tar.zst.age"] = TarTarget(directory=directory)
        using = self._using
        items = [OpenItem(object=item, target=places[item.name]) for item in using.manifest.objects]
        for name, item in log.items():
            items.append(OpenItem(object=item, target=FileTarget(path=f"{self.archive}/{name}")))
        return using.reader.open(self.host, items, using.identity)

    def check_files(self) -> Check:
        """Every file of the backup manifest, by checksum where pg_verifybackup runs, else by size.

        The contents are those that were streamed in any case: each chunk was authenticated.
        Raises PermanentError if they are not whole.
        """
        for oid, directory in self._spaces.items():
            self.host.run(["ln", "-sfn", directory, f"{self.data_dir}/pg_tblspc/{oid}"])
        tool = f"{self._bin}/pg_verifybackup"
        by_checksum = self.host.run([tool, "--version"], check=False).exit_code == 0
        if by_checksum:
            spaces = (f"pg_tblspc/{oid}/{stamp.FILE}" for oid in self._spaces)
            argv = [tool, "-n", "-q"]
            for own in ("tablespace_map", stamp.FILE, *spaces):
                argv += ["-i", own]
            argv.append(self.data_dir)
        else:
            argv = [self.host.python, "-c", _COMPARE_SIZES, self.data_dir]
        done = self.host.run(argv, check=False, timeout=START_SECONDS)
        method = "checksums, by pg_verifybackup" if by_checksum else "sizes"
        if done.exit_code == 0:
            actual = f"all files agree ({method})"
            return Check("backup-files", CheckStatus.PASSED, "the backup manifest's files", actual)
        said = (done.text + done.stderr.decode(errors="replace")).strip().replace("\n", "; ")
        raise PermanentError(
            f"the extracted files are not those of the backup manifest ({method}): {said[:500]}",
            operation="verify files",
            domain=self._using.recovery.name,
            host=self.host.name,
            hint="look at the recovery host's disk; restore again, or choose another set",
        )

    def replay_begins(self) -> int:
        """Where in the log the replay will begin, by the base backup's label."""
        path = f"{self.data_dir}/backup_label"
        label = self.host.get(path).decode(errors="replace")
        if (found := _BEGINS.match(label)) is None:
            raise PermanentError(
                f"{path} does not say where the replay begins",
                operation="recovery",
                domain=self._using.recovery.name,
                host=self.host.name,
                hint="choose another set: no base backup has such a label",
            )
        return parse_lsn(found[1])

    def memory(self) -> int:
        """The host's memory in bytes."""
        found = re.search(r"MemTotal:\s+(\d+) kB", self.host.run(["cat", "/proc/meminfo"]).text)
        return int(found[1]) * 1024 if found else 2**30

    def configure(self, postgresql_conf: str, pg_hba_conf: str, *, standby: bool) -> None:
        """Write every file of configuration anew: nothing of the source's is read."""
        signs = ("recovery.signal", "standby.signal")
        files = {
            "postgresql.conf": postgresql_conf,
            "postgresql.auto.conf": "",
            "pg_hba.conf": pg_hba_conf,
            "pg_ident.conf": "",
            signs[standby]: "",
        }
        if self._spaces:
            files["tablespace_map"] = config.tablespace_map(self._spaces)
        for name, text in files.items():
            self.host.put(text.encode(), f"{self.data_dir}/{name}")
        # The archive's own map would lead the server to places that the plan does not give it.
        gone = (signs[not standby], *(() if self._spaces else ("tablespace_map",)))
        self.host.run(["rm", "-f", *(f"{self.data_dir}/{name}" for name in gone)])

    def start(self) -> None:
        """Start the server; it begins to replay."""
        argv = [f"{self._bin}/pg_ctl", "-D", self.data_dir, "-W", "-s", "-l", self._log, "start"]
        self.host.run(self._using.reader.stamped([*ALONE, *argv]))

    def await_replay(self) -> int | None:
        """Until the log is replayed; about where it ended, where the server has told so far.

        Raises PermanentError if the server dies.
        """
        found = _ENDED.findall(self._await(_REPLAYED))
        return parse_lsn(found[-1]) if found else None

    def await_ready(self) -> None:
        """Until the server takes connections. Raises as `await_replay`."""
        self._await(_READY)

    def _await(self, sign: re.Pattern[str]) -> str:
        give_up = time.monotonic() + START_SECONDS
        script = 'tail -c 20000 "$1"; kill -0 "$(head -n 1 "$2/postmaster.pid")" 2>&1'
        alive = time.monotonic()
        while time.monotonic() < give_up:
            argv = ["sh", "-c", script, "sh", self._log, self.data_dir]
            done = self.host.run(argv, check=False)
            if sign.search(done.text) or _READY.search(done.text):
                return done.text
            if done.exit_code == 0:
                alive = time.monotonic()
            elif _DIED.search(done.text) or time.monotonic() > alive + DEAD_SECONDS:
                break
            time.sleep(0.2)
        text = redacted(self.host.run(["tail", "-n", "30", self._log], check=False).text)
        causes = _causes(text) or text.splitlines()[-3:]
        raise PermanentError(
            "the restored server did not come up: " + " | ".join(causes),
            operation="recovery",
            domain=self._using.recovery.name,
            host=self.host.name,
            hint=f"read {self._log} on {self.host.name} (run with --keep to have it left there)",
        )


def _causes(log: str) -> list[str]:
    """The lines about what a server died of; none where the log does not tell.

    What is wrong with a configuration stands before the line that ends it, a hint behind it. Last
    of all the server tells what else it ends.
    """
    said = [line for line in _SAID.findall(log) if not _STARTING.search(line)]
    died = [at for at, line in enumerate(said) if _DIED.search(line)]
    return said[max(0, died[-1] - 2) : died[-1] + 3] if died else []
