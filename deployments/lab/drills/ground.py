"""What drills break: a lab that is up, its databases, vaults, stores, tools, and its plan."""

import copy
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
import yaml

from blocks.artifact.manifest import LogIndex, Manifest, SetHeader, header_of, sign, verify
from blocks.evidence.record import Node
from blocks.plan.loading import load_plan
from blocks.plan.model import Plan
from blocks.repositories.farside.layout import HEADER, LOG, MANIFEST
from blocks.repositories.farside.listing import set_ids
from blocks.stores.s3 import S3Store
from deployments.lab import credentials, lifecycle, processes
from deployments.lab.accounts import Account, service_account
from deployments.lab.drills.live import Live, live
from deployments.lab.places import Places
from deployments.lab.processes import Service
from deployments.lab.services import answers, network_services
from deployments.lab.site import Endpoint, Site
from deployments.lab.state import State, load_state

AnyLive = TypeVar("AnyLive", bound=Live)

NEWER = "r29990101-000000-000000"
"""The id of a set that is newer than every real one; OLDER is older."""
OLDER = "r20000101-000000-000000"


_LISTEN = """\
import signal, socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
signal.pause()
"""


def _aside(path: Path) -> Path:
    """Where a file is put that makes room for another; drills that are run together nest."""
    number = len(list(path.parent.glob(f".{path.name}.aside*")))
    return path.with_name(f".{path.name}.aside{number}")


def _processes(root: Path) -> list[str]:
    """Processes of this lab's hosts that a rehearsal started: agents, servers, tools."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            places = f"{line} {process.cwd()}"
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if str(root) in places and ("/farside/r2" in places or "/recovered/" in places):
            found.append(f"{process.pid}: {line}")
    return found


class Ground:
    """One lab and one copy of its plan. What a drill changes in `document` is what is rehearsed."""

    def __init__(self, places: Places, folder: Path, plan: str = "postgres") -> None:
        self.places = places
        self.folder = folder
        state = load_state(places)
        assert state is not None
        self.state: State = state
        self.name = plan
        self.document: Any = self._whole()
        self.plan: Plan = load_plan(places.plans / f"{plan}.yaml")
        self.live: Live = live(places, self.east, plan, self.plan)

    def _whole(self) -> Any:
        document = yaml.safe_load((self.places.plans / f"{self.name}.yaml").read_text())
        # The set that most drills rehearse was taken a while ago.
        document["objectives"] = {"rto": "1h", "rpo": "24h"}
        return document

    def reset(self) -> None:
        """The plan as it was."""
        self.document = copy.deepcopy(self._whole())

    def write(self) -> Path:
        """The plan as a file."""
        path = self.folder / "plan.yaml"
        path.write_text(yaml.safe_dump(self.document, sort_keys=False))
        return path

    def close(self) -> None:
        """Close connections to hosts and stores."""
        self.plan.source.close()
        self.plan.recovery.close()

    def left(self) -> list[str]:
        """What a rehearsal left on hosts, in data directories and in the source's database.

        Asked without farside's help.
        """
        found = [str(path) for path in self.places.root.glob("*/hosts/*/farside/*")]
        found += [str(path) for path in self.places.root.glob("west/hosts/*/recovered/*/*")][:3]
        found += self.live.left()
        for domain in ("east", "west"):
            found += [f"upload {item.key}" for item in self.store(domain).uploads("sets/")]
        return found + _processes(self.places.root)

    # -- the two sites ------------------------------------------------------------------------

    @property
    def east(self) -> Site:
        """The source's site."""
        return self.state.sites[0]

    @property
    def west(self) -> Site:
        """The recovery site."""
        return self.state.sites[1]

    @property
    def target(self) -> Any:
        """The plan's part for the restored server."""
        return self.document["engine"]["target"]

    @property
    def losing(self) -> Any:
        """The plan's part for the command that loses east; packet filters may stand behind it."""
        fence = self.document["fence"]
        return fence["fences"][0] if fence["kind"] == "several" else fence

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes of the restored service."""
        return self.plan.engine.predicted_nodes

    @property
    def node(self) -> Node:
        """The first of them."""
        return self.nodes[0]

    def living(self, kind: type[AnyLive]) -> AnyLive:
        """The live database, which is of this kind."""
        assert isinstance(self.live, kind)
        return self.live

    def home(self, domain: str, number: int = 0) -> Path:
        """The disk of one of a domain's hosts, by its place in the plan."""
        part = "source" if domain == "east" else "recovery"
        return self.places.host(domain, self.document[part]["hosts"][number]["name"])

    def service(self, name: str) -> Service:
        """An SSH server or store by its name, such as west-ssh-db1."""
        services = [s for site in self.state.sites for s in network_services(self.places, site)]
        return next(service for service in services if service.name == name)

    @contextmanager
    def without(self, name: str) -> Iterator[None]:
        """A service killed, then started again."""
        processes.kill_service(self.places, name)
        try:
            yield
        finally:
            self.heal()

    @contextmanager
    def stranger(
        self, host: str, endpoint: Endpoint, argv: Sequence[str], account: Account | None = None
    ) -> Iterator[None]:
        """A program that is none of the lab's listens at an address of a host of west.

        It runs as `account`, or as the caller.
        """
        west = self.west
        service = Service(
            name=f"{west.name}-stranger-{endpoint[1]}",
            tree=self.places.tree(west.name),
            argv=tuple(argv),
            cwd=self.places.tree(west.name),
            log=self.places.logs(west.name) / "stranger.log",
            ready=lambda: answers(endpoint),
            namespace=west.namespace(host),
        )
        processes.start(self.places, service, account)
        try:
            processes.wait_ready(self.places, [service])
            yield
        finally:
            processes.kill_service(self.places, service.name)

    @contextmanager
    def listening(self, node: Node) -> Iterator[None]:
        """Somebody listens where a node is to be restored."""
        python = str(self.places.python(self.west.name))
        endpoint = node.address, node.port
        argv = (python, "-c", _LISTEN, node.address, str(node.port))
        with self.stranger(node.host, endpoint, argv, service_account()):
            yield

    @contextmanager
    def occupied(self, data: Path) -> Iterator[None]:
        """Somebody's file lies in a target directory; it must survive."""
        made = next(path for path in (*reversed(data.parents), data) if not path.exists())
        data.mkdir(parents=True)
        try:
            (data / "precious").write_text("somebody's")
            yield
            assert (data / "precious").read_text() == "somebody's"
        finally:
            shutil.rmtree(made)  # with what was made above it, which is no service account's

    def heal(self) -> None:
        """Start whatever of the lab does not run."""
        lifecycle.up(self.places, None, lambda _step: None)

    # -- files, secrets, tools ----------------------------------------------------------------

    @contextmanager
    def file(self, path: Path, text: str | bytes | None, mode: int | None = None) -> Iterator[None]:
        """Another file (None: none) under a name, then the one that was there, if one was.

        Never written in place: the tools of both sites are links to one file.
        """
        there = path.exists() or path.is_symlink()
        aside = _aside(path)
        like = path.stat() if there else path.parent.stat()
        if there:
            path.rename(aside)
        try:
            if text is not None:
                path.write_bytes(text.encode() if isinstance(text, str) else text)
                path.chmod(mode if mode is not None else like.st_mode & 0o777 if there else 0o644)
                os.chown(path, like.st_uid, like.st_gid)
            yield
        finally:
            path.unlink(missing_ok=True)
            if there:
                aside.rename(path)

    @contextmanager
    def secret(self, name: str, text: str | None, domain: str = "west") -> Iterator[None]:
        """Another text (None: nothing) under a secret's name in a domain's vault."""
        path = self.places.secrets(domain) / name
        with self.file(path, None if text is None else f"{text}\n"):
            yield

    @contextmanager
    def wrapped(self, program: str, script: str, domain: str = "west") -> Iterator[None]:
        """A shell script in the place of one of the database's programs; "$REAL" is that one.

        Its text is read as it runs: it stands for what no look at a program can see.
        """
        path = self.live.bin(domain) / program
        text = Path(f"{_aside(path)}.sh")
        with self.file(text, script), self._wrapped(path, f'eval "$(cat "{text}")"'):
            yield

    @contextmanager
    def wrapped_openly(self, program: str, script: str) -> Iterator[None]:
        """As `wrapped`, on west, with the text in the program's place."""
        with self._wrapped(self.live.bin("west") / program, script):
            yield

    @contextmanager
    def without_filters(self) -> Iterator[None]:
        """West's nft says yes to new rules and raises none."""
        path = self.places.packet_filter(self.west.name)
        if not path.exists():
            yield  # a lab on loopback has none
            return
        script = 'case "$*" in --file*) exec cat >/dev/null ;; esac\nexec "$REAL" "$@"'
        with self._wrapped(path, script):
            yield

    @contextmanager
    def _wrapped(self, path: Path, script: str) -> Iterator[None]:
        real = _aside(path)
        with self.file(path, f'#!/bin/sh\nREAL="{real}"\n{script}\n', 0o755):
            yield

    def own(self, path: Path) -> Path:
        """Give a file to the account that the services run as."""
        service_account().own(path)
        return path

    # -- backup sets --------------------------------------------------------------------------

    def store(self, domain: str) -> S3Store:
        """A domain's store, as the plan reaches it."""
        part = self.plan.source if domain == "east" else self.plan.recovery
        assert isinstance(part.store, S3Store)
        return part.store

    def newest(self) -> str:
        """The id of the newest set in west."""
        return set_ids(self.store("west"), self.name)[-1]

    def sets(self) -> list[str]:
        """The ids of all sets, complete or not, in either store."""
        found = (
            info.key.split("/")[2]
            for domain in ("east", "west")
            for info in self.store(domain).objects(f"sets/{self.name}/")
        )
        return sorted(set(found))

    def forget(self, set_id: str) -> None:
        """Remove a set from both stores."""
        for domain in ("east", "west"):
            store = self.store(domain)
            store.remove([info.key for info in store.objects(f"sets/{self.name}/{set_id}/")])

    @contextmanager
    def stored(self, name: str, change: Callable[[bytes], bytes | None]) -> Iterator[None]:
        """An object of the newest set in west changed (None: removed), then whole again.

        Through the store: what is done to its files behind its back, it may not notice.
        """
        store, key = self.store("west"), f"sets/{self.name}/{self.newest()}/{name}"
        whole = store.get(key)
        changed = change(whole)
        if changed is None:
            store.remove([key])
        else:
            store.put(key, changed)
        try:
            yield
        finally:
            store.put(key, whole)

    @contextmanager
    def facts(self, change: Callable[[Any], None]) -> Iterator[None]:
        """The newest set in west with a manifest that says something else, and is truly signed."""
        manifest = self.signed(MANIFEST)
        assert isinstance(manifest, Manifest)
        facts = copy.deepcopy(dict(manifest.engine_facts))
        change(facts)
        manifest = replace(manifest, engine_facts=facts)
        changed = self.sign(manifest)
        header = self.sign(header_of(manifest, len(changed)))
        with (
            self.stored(HEADER, lambda _whole: header),
            self.stored(MANIFEST, lambda _whole: changed),
        ):
            yield

    @contextmanager
    def another_set(
        self, domain: str, set_id: str, change: Callable[[Manifest], Manifest]
    ) -> Iterator[None]:
        """The manifest of a further set in a store: the newest one's, changed, and truly signed."""
        store = self.store(domain)
        found = self.signed(MANIFEST)
        assert isinstance(found, Manifest)
        key = f"sets/{self.name}/{set_id}/{MANIFEST}"
        store.put(key, self.sign(change(found)))
        try:
            yield
        finally:
            store.remove([key])

    def signed(self, name: str) -> Manifest | LogIndex:
        """A signed document of the newest set in west."""
        text = self.store("west").get(f"sets/{self.name}/{self.newest()}/{name}")
        found = verify(text, self.plan.keys.signer)
        assert not isinstance(found, SetHeader)
        return found

    def sign(self, document: Manifest | LogIndex | SetHeader) -> bytes:
        """A document signed with the source's own key."""
        return sign(document, credentials.secret(self.places, "east", "farside-signing-key"))

    def log_index(self) -> LogIndex:
        """The log of the newest set."""
        found = self.signed(LOG)
        assert isinstance(found, LogIndex)
        return found
