"""The lease of a rehearsal: renewed while it runs, on every host and in the store of each domain.

It tells, on any machine that finds something of the rehearsal, whether the rehearsal still runs.
What farside runs on a host ends by itself when the lease runs out.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from blocks.agent import lease, marks
from blocks.domain import FailureDomain
from blocks.errors import FarsideError
from blocks.evidence.uses import unnoted
from blocks.hosts.host import Host
from blocks.remote.folder import work_folder
from blocks.settings import lease_seconds
from blocks.stores.store import ObjectStore
from tasks.reporting.clock import Suspended

_FIRST_SECONDS = 15.0
"""How long to wait for the first renewals: a host that is down must not hold a rehearsal."""


def this_process() -> str:
    """What names this process on its machine, across reboots and containers."""
    pid = os.getpid()
    return f"{marks.machine()} {pid} {marks.start_of(pid)}"


def has_ended(owner: str) -> bool:
    """Whether a process is known to have ended: one of this machine, since its last boot."""
    words = owner.split()
    if len(words) != 4 or " ".join(words[:2]) != marks.machine() or not words[2].isdecimal():
        return False
    return str(marks.start_of(int(words[2]))) != words[3]


def store_key(rehearsal_id: str) -> str:
    """The key of a rehearsal's lease in a store."""
    return f"{STORED}{rehearsal_id}.json"


def mark(store: ObjectStore, rehearsal_id: str, plan: str) -> None:
    """Say in a store, once, that this process works on a rehearsal.

    Whatever it leaves is then a dead rehearsal's to a sweep. Raises what the store raises.
    """
    told = lease.Lease(plan, lease_seconds(), owner=this_process())
    store.put(store_key(rehearsal_id), told.dumps())


STORED = "leases/"
"""Where leases are kept in a store."""


class Lease:
    """The lease of one rehearsal in the domains given. A thread for each place renews it.

    A place that cannot be reached is tried again at the next renewal; preflight reports it.
    """

    def __init__(self, rehearsal_id: str, plan: str, domains: Iterable[FailureDomain]) -> None:
        self._id = rehearsal_id
        self._renewers: dict[str, list[_Renewer]] = {}
        self._told = lease.Lease(plan, lease_seconds(), owner=this_process())
        self.reached: set[str] = set()
        """Hosts, as DOMAIN/HOST, on which it was written: something of the rehearsal is there."""
        self._ending = False
        self._awake = _Awake(self._told.seconds)
        self._stored: dict[str, Callable[[], None]] = {}
        for domain in domains:
            self._stored[domain.name] = self._in(domain.store)
            hosts = [self._on(host) for host in domain.machines()]
            writes = [*hosts, self._stored[domain.name]]
            self._renewers[domain.name] = [
                _Renewer(f"lease-{domain.name}-{number}", write, self._told.seconds / 3)
                for number, write in enumerate(writes)
            ]

    def start(self) -> None:
        """Begin to renew; returns once every place was tried, or after some seconds. Idempotent."""
        if self._awake.ident is None:
            self._awake.start()
        for renewers in self._renewers.values():
            for renewer in renewers:
                if renewer.ident is None:
                    renewer.start()
        for renewers in self._renewers.values():
            for renewer in renewers:
                renewer.tried.wait(_FIRST_SECONDS)

    def require(self) -> None:
        """Raise Suspended if nothing renewed the lease for longer than it is good for.

        Not during the teardown, which only touches what bears the rehearsal's stamp.
        """
        if not self._ending and (still := self._awake.stood_still()):
            raise Suspended(
                f"this process stood still for {still:.0f} s, longer than its lease of"
                f" {self._told.seconds:g} s: a sweep may have removed what it made",
                hint="rehearse again, on a machine that is not suspended",
            )

    def enter_no_more(self) -> None:
        """Renew it where it is; a host that comes back only now must not get a directory."""
        self._ending = True

    def note_fence(self, domain: str, marks: Iterable[str]) -> None:
        """Say in the lease that the rehearsal raises what bears these marks; without any, nothing.

        It is in the store of `domain` when this returns, and soon on the hosts. Raises what the
        store raises: then nothing may be raised, for no sweep would know whose it is.
        """
        former, told = self._told, replace(self._told, fences=tuple(sorted(marks)))
        if told == former:
            return
        self._told = told
        try:
            self._stored[domain]()
        except FarsideError:
            self._told = former
            raise
        for renewer in self._renewers.get(domain, []):
            renewer.renew()

    def leave(self, domain: str) -> None:
        """From here on nothing of `domain` is touched; its lease stays as it is. Idempotent."""
        renewers = self._renewers.pop(domain, [])
        for renewer in renewers:
            renewer.stop()
        for renewer in renewers:
            if renewer.ident is not None:
                renewer.join(_FIRST_SECONDS)

    def stop(self) -> None:
        """Renew no more, anywhere. Idempotent."""
        self._awake.stop()
        for domain in list(self._renewers):
            self.leave(domain)

    def keep(self, domain: FailureDomain, seconds: float) -> None:
        """Renew no more; what runs in `domain` is kept for so long, by its own clocks.

        Raises FarsideError where that cannot be written: there it counts as left behind soon.
        """
        self.stop()
        kept = replace(self._told, seconds=seconds, kept=True, owner="").dumps()
        for host in domain.machines():
            if f"{host.domain}/{host.name}" in self.reached:
                host.put(kept, f"{host.work_root}/{self._id}/{lease.FILE}")
        domain.store.put(store_key(self._id), kept)

    def end(self, store: ObjectStore) -> None:
        """Renew no more, and say in a store that the rehearsal has ended: a sweep does the rest.

        Raises what the store raises: there it runs out.
        """
        self.stop()
        store.put(store_key(self._id), replace(self._told, ended=True).dumps())

    def remove(self, stores: Iterable[ObjectStore]) -> None:
        """Renew no more, and remove the lease from stores: nothing is left that it is for.

        Raises what the stores raise.
        """
        self.stop()
        for store in stores:
            store.remove([store_key(self._id)])

    def _on(self, host: Host) -> Callable[[], None]:
        written: lease.Lease | None = None

        def write() -> None:
            nonlocal written
            told, path = self._told, f"{host.work_root}/{self._id}/{lease.FILE}"
            if written is None:
                if self._ending:
                    return
                work_folder(host, self._id)
                self.reached.add(f"{host.domain}/{host.name}")
                host.put(told.dumps(), path)
            elif written != told:
                host.put(told.dumps(), path)
            else:
                # Without making it: a sweep or a teardown may have removed it.
                host.run(["touch", "-c", path])
            written = told

        return write

    def _in(self, store: ObjectStore) -> Callable[[], None]:
        lock = threading.Lock()

        def write() -> None:
            with lock:  # or an older lease could replace a newer one
                store.put(store_key(self._id), self._told.dumps())

        return write


class _Awake(threading.Thread):
    """Notices that the process, or the whole machine, stood still for longer than `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(name="lease-awake", daemon=True)
        self._seconds = seconds
        self._ended = threading.Event()
        self._longest = 0.0
        self._last: float | None = None

    def run(self) -> None:
        """Look at the time until told to stop."""
        self._last = _since_boot()
        while not self._ended.wait(min(1.0, self._seconds / 6)):
            self._longest, self._last = self._still(), _since_boot()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def stood_still(self) -> float:
        """For how many seconds at once; 0 where that was no longer than it may."""
        longest = self._still()
        return longest if longest > self._seconds else 0.0

    def _still(self) -> float:
        return max(self._longest, 0.0 if self._last is None else _since_boot() - self._last)


def _since_boot() -> float:
    """Unlike the monotonic clock, this one goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _Renewer(threading.Thread):
    def __init__(self, name: str, write: Callable[[], None], interval: float) -> None:
        super().__init__(name=name, daemon=True)
        self.tried = threading.Event()
        self._write = write
        self._interval = interval
        self._ended = threading.Event()
        self._due = threading.Event()

    def run(self) -> None:
        """Renew until told to stop."""
        while not self._ended.is_set():
            # Nothing that a restore depends on: the ledger of uses is not told.
            with suppress(FarsideError), unnoted():
                self._write()
            self.tried.set()
            self._due.wait(self._interval)
            self._due.clear()

    def renew(self) -> None:
        """Renew at once."""
        self._due.set()

    def stop(self) -> None:
        """Renew no more."""
        self._ended.set()
        self._due.set()
