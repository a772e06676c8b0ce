"""Servers of the source's own cluster that run on a recovery host.

A copy of the cluster (a test system, say) bears the same system identifier and is none of the
source's; so is what a rehearsal restored. The source's own are the server that was surveyed, known
by the time of its start, and standbys.
"""

from blocks.agent import stamp
from blocks.artifact import wire
from blocks.engines.abilities import Running
from blocks.engines.postgres.facts import PostgresFacts
from blocks.hosts.host import Host

START_SECONDS = 120
"""A server writes down when it was started; it tells when it had started, which is later."""

# A postmaster works in its data directory; other network namespaces are other hosts.
_LOOK = f"""
import json, os, sys
found, hidden = [], []

def parent(pid):
    with open(f"/proc/{{pid}}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[1].decode()

def is_server(pid):
    with open(f"/proc/{{pid}}/comm") as file:
        return file.read().strip() in ("postgres", "postmaster")

for pid in filter(str.isdecimal, os.listdir("/proc")):
    try:
        if not is_server(pid) or is_server(parent(pid)):
            continue
        try:
            if os.readlink(f"/proc/{{pid}}/ns/net") != os.readlink("/proc/self/ns/net"):
                continue
            with open(f"/proc/{{pid}}/environ", "rb") as file:
                if b"{stamp.VARIABLE}=" in file.read():
                    continue
            data = os.readlink(f"/proc/{{pid}}/cwd")
            with open(f"{{data}}/postmaster.pid") as file:
                lines = file.read().splitlines()
            with open(f"{{data}}/global/pg_control", "rb") as file:
                identifier = int.from_bytes(file.read(8), sys.byteorder)
        except PermissionError:
            hidden.append(pid)
            continue
        if lines[0] == pid:
            standby = os.path.exists(f"{{data}}/standby.signal")
            found.append([pid, data, str(identifier), int(lines[2]), standby])
    except (OSError, ValueError, IndexError):
        pass
print(json.dumps([found, hidden]))
"""


def running(facts: PostgresFacts, host: Host) -> Running:
    """What of the source runs on `host`. Raises as Host.run."""
    # What an account's start-up files print comes before it.
    said = host.run([host.python, "-c", _LOOK]).text
    found, hidden = wire.parsed(said.rpartition("\n")[2])
    own, began = list[str](), facts.started
    for pid, data, identifier, started, standby in found:
        if identifier != facts.system_identifier:
            continue
        if standby:
            own.append(f"a standby of the source's cluster runs there: process {pid} in {data}")
        elif began is not None and -1 <= began - started <= START_SECONDS:
            own.append(f"the source's server runs there: process {pid} in {data}")
    unknown = [f"process {pid} of PostgreSQL belongs to another account" for pid in hidden]
    return Running(tuple(own), tuple(unknown))
