"""A data directory on a recovery host, from its making to a server that is ready."""

import re
import secrets
import shlex
import time
from collections.abc import Mapping

from blocks.artifact.job import FileTarget, MadePath, MadePidfile, OpenItem, TarTarget
from blocks.artifact.manifest import SealedObject
from blocks.engines.base import Restoration
from blocks.engines.pg import config
from blocks.errors import PermanentError
from blocks.evidence.record import Check, CheckStatus
from blocks.hosts import Host

START_SECONDS = 6 * 3600.0
"""Time limit for replaying the log."""
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
_DIED = re.compile(r"^.*(?:FATAL|PANIC):.*$", re.MULTILINE)


class Cluster:
    """A cluster that is being restored; its methods are called in the order in which they stand.

    `spaces` are its tablespaces: oid -> directory.
    """

    def __init__(
        self,
        using: Restoration,
        host: Host,
        bin_dir: str,
        data_dir: str,
        spaces: Mapping[str, str],
    ) -> None:
        self.host = host
        self.data_dir = data_dir
        self._using = using
        self._bin = bin_dir
        self._spaces = spaces
        self._archive = f"{using.work(host)}/wal"
        self._log = f"{using.work(host)}/postgres.log"

    @property
    def restore_command(self) -> str:
        """How the server gets the log that `fetch` brought."""
        return f"cp {shlex.quote(self._archive)}/%f %p"

    def prepare(self) -> str:
        """Make the directories, after noting them for the sweep; returns that of the socket."""
        host = self.host
        # Noted before it is made; in /tmp, for the path of a socket must be short.
        socket_dir = f"/tmp/farside-{secrets.token_hex(4)}"
        made = [MadePath(path=path) for path in (self.data_dir, *self._spaces.values(), socket_dir)]
        pidfile = MadePidfile(pidfile=f"{self.data_dir}/postmaster.pid")
        self._using.reader.mark(host, pidfile, *made)
        host.run(["mkdir", "-m", "0700", socket_dir])
        directories = [self.data_dir, self._archive, *self._spaces.values()]
        host.run(["mkdir", "-p", "-m", "0700", *directories])
        host.run(["chmod", "0700", self.data_dir])
        return socket_dir

    def fetch(self, log: Mapping[str, SealedObject]) -> int:
        """Bring base and log; returns the bytes read from the store."""
        places: dict[str, TarTarget | FileTarget] = {
            "base.tar.zst.age": TarTarget(directory=self.data_dir),
            "backup_manifest.zst.age": FileTarget(path=f"{self.data_dir}/backup_manifest"),
        }
        for oid, directory in self._spaces.items():
            places[f"{oid}.tar.zst.age"] = TarTarget(directory=directory)
        using = self._using
        items = [OpenItem(object=item, target=places[item.name]) for item in using.manifest.objects]
        for name, item in log.items():
            items.append(OpenItem(object=item, target=FileTarget(path=f"{self._archive}/{name}")))
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
            argv = [tool, "-n", "-q", "-i", "tablespace_map", self.data_dir]
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
        self.host.run(["rm", "-f", f"{self.data_dir}/{signs[not standby]}"])

    def start(self) -> None:
        """Start the server; it begins to replay."""
        argv = [f"{self._bin}/pg_ctl", "-D", self.data_dir, "-W", "-s", "-l", self._log, "start"]
        self.host.run(argv)

    def await_replay(self) -> None:
        """Until the log is replayed. Raises PermanentError if the server dies."""
        self._await(_REPLAYED)

    def await_ready(self) -> None:
        """Until the server takes connections. Raises as `await_replay`."""
        self._await(_READY)

    def _await(self, sign: re.Pattern[str]) -> None:
        give_up = time.monotonic() + START_SECONDS
        script = 'tail -c 20000 "$1"; kill -0 "$(head -n 1 "$2/postmaster.pid")" 2>&1'
        alive = time.monotonic()
        while time.monotonic() < give_up:
            argv = ["sh", "-c", script, "sh", self._log, self.data_dir]
            done = self.host.run(argv, check=False)
            if sign.search(done.text) or _READY.search(done.text):
                return
            if done.exit_code == 0:
                alive = time.monotonic()
            elif _DIED.search(done.text) or time.monotonic() > alive + DEAD_SECONDS:
                break
            time.sleep(0.2)
        text = self.host.run(["tail", "-n", "30", self._log], check=False).text
        causes = _DIED.findall(text) or text.splitlines()[-3:]
        raise PermanentError(
            "the restored server did not come up: " + " | ".join(causes),
            operation="recovery",
            domain=self._using.recovery.name,
            host=self.host.name,
            hint=f"read {self._log} on {self.host.name} (run with --keep to have it left there)",
        )
