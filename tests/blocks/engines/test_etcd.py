"""etcd in the lab: three members, restored into as many others, into one, and into five.

With the etcd of PyPI, which is 3.5.1, with Debian's, which is 3.4, and with a newer one, which can
raise the revision; and when members die, or the old cluster comes back.
"""

import base64
import json
import os
import re
import shutil
import ssl
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
import yaml
from pydantic import SecretStr

from blocks.engines.checks import CheckSpec, run_check
from blocks.engines.etcd import Etcd, access, checks, compare, integrity
from blocks.engines.etcd.etcdctl import Compacted, Etcdctl, LoginRefused
from blocks.engines.etcd.facts import LastLook, Snapshot
from blocks.engines.etcd.restore import snapshot_tool
from blocks.errors import TransientError
from blocks.evidence.record import Check, CheckStatus, Record, Verdict
from blocks.evidence.verdict import exit_code
from blocks.hosts.local import LocalHost
from blocks.plan.loading import load_plan
from blocks.plan.model import Plan
from blocks.remote.failures import AgentFailed
from deployments import lab
from deployments.lab import processes
from deployments.lab.accounts import service_account
from deployments.lab.credentials import member_files
from deployments.lab.drills import Ground
from deployments.lab.drills.etcd import LiveEtcd
from deployments.lab.parts import etcd
from deployments.lab.parts.etcd import SETTINGS, with_members
from deployments.lab.places import Places
from flows.rehearse import Watcher, rehearse, watching
from tasks.reporting.clock import Listener, Silence
from tasks.sweep import sweep_plan
from tests import mechanisms
from tests.blocks.engines.conformance import EngineConformance
from tests.blocks.engines.worlds import need_debian

DEBIAN = Path("/usr/bin")


class Conformance(EngineConformance):
    growing: ClassVar = frozenset({"fetch and open", "key-space", "restore snapshot"})
    known_findings: ClassVar = frozenset({("revision-reused", "west")})
    runbook_variables: ClassVar = {"DATA": "{place}/data"}
    runbook_secrets: ClassVar = {"PASSWORD": "etcd-shop-password"}
    runbook_proof: ClassVar = (
        '"$BIN/etcdctl" --endpoints "$CLIENT" --cacert "$CA" --user shop get --prefix'
        ' /shop/settings/ --limit=1 --keys-only --write-out=fields < "$PASSWORD"',
    )
    runbook_end = 'kill -9 "${ETCD:-}"'
    proven = r'"Count" : 500\n'
    members: ClassVar[int]
    show_certificates: ClassVar[bool] = False

    @pytest.fixture(scope="class")
    @classmethod
    def plan_path(cls, places: Places, tmp_path_factory: pytest.TempPathFactory) -> Path:
        lab.up(places.root, parts=[etcd.NAME])
        document = yaml.safe_load(lab.plan_path(places.root, "etcd").read_text())
        document = with_members(document, cls.members)
        if cls.show_certificates:
            certificate, key = member_files(places, "east", "kv1")
            document["engine"]["source"] |= {"cert_file": str(certificate), "key_file": str(key)}
            document["engine"]["target"]["client_cert_auth"] = True
        path = tmp_path_factory.mktemp("plans") / "plan.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    def test_has_the_shape_of_the_plan(self, rehearsed: Record) -> None:
        assert rehearsed.topology.observed is not None
        assert len(rehearsed.topology.observed) == self.members
        actual = {check.name: check.actual for check in rehearsed.checks}
        same = rf"[\d,]+ keys, the same on {self.members} members"
        assert re.fullmatch(same, str(actual["key-space"]))
        assert ("failover" in actual) is (self.members > 2)

    def test_what_was_lost_is_known(self, rehearsed: Record) -> None:
        assert rehearsed.transactions_lost is not None
        assert rehearsed.recovered_until is not None


@mechanisms.CLUSTERS
class TestThree(Conformance):
    plan_name = "etcd"
    members = 3


@pytest.mark.essential
class TestOne(Conformance):
    """Its clients must show a certificate; farside shows one in east, too."""

    plan_name = "etcd"
    members = 1
    runbook_proof: ClassVar = (f'{Conformance.runbook_proof[0]} --cert "$CERT" --key "$KEY"',)
    show_certificates = True


@mechanisms.CLUSTERS
class TestFive(Conformance):
    plan_name = "etcd"
    members = 5


@mechanisms.CLUSTERS
class TestDebian(Conformance):
    """Both sites with Debian's etcd, which is 3.4 and has no etcdutl."""

    plan_name = "etcd"
    members = 3

    @pytest.fixture(scope="class")
    @classmethod
    def places(cls) -> Iterator[Places]:
        """A lab of their own, whose programs are exchanged before the cluster is made."""
        with programs_of(east=debian(), west=debian()) as places:
            yield places

    def test_is_another_version(self, rehearsed: Record, plan: Plan) -> None:
        """In east and in west."""
        assert rehearsed.runbook[0].title.startswith("Prepare: etcd 3.4.")
        host = plan.recovery.host("kv1")
        said = host.run([f"{engine_of(plan).target.bin_dir}/etcd", "--version"]).text
        assert compare.version_of(said) == (3, 4)


@mechanisms.CLUSTERS
class TestRaised(Conformance):
    """From Debian's etcd to one that can raise the revision: clients learn of the restore."""

    plan_name = "etcd"
    members = 3
    known_findings: ClassVar = frozenset()
    proven = r'"Revision" : 10000\d{5}\n(.|\n)*"Count" : 500\n'

    @pytest.fixture(scope="class")
    @classmethod
    def places(cls) -> Iterator[Places]:
        """A lab of their own."""
        newer = Path(os.environ.get("FARSIDE_NEWER_ETCD", "/nowhere"))
        need_debian("etcd 3.5.10 or later, in FARSIDE_NEWER_ETCD,", str(newer / "etcdutl"))
        with programs_of(east=debian(), west=newer) as places:
            yield places

    def test_what_watches_must_begin_anew(self, rehearsed: Record) -> None:
        checks = {check.name: check for check in rehearsed.checks}
        assert "is compacted" in str(checks["revision"].actual)
        compared = r"one hash on all members, SHA-256 [0-9a-f]{64} of all keys at revision \d+"
        assert re.fullmatch(compared, str(checks["key-space"].expected))


def debian() -> Path:
    """Where Debian's programs are."""
    need_debian("etcd-server", str(DEBIAN / "etcd"))
    need_debian("etcd-client", str(DEBIAN / "etcdctl"))
    return DEBIAN


@contextmanager
def programs_of(**programs: Path) -> Iterator[Places]:
    """A lab whose sites have these programs instead of PyPI's, from before a cluster is made."""
    root = Path(tempfile.mkdtemp(prefix="farside-etcd-", dir="/var/tmp"))
    root.chmod(0o711)
    places = Places.at(root / "lab")
    try:
        lab.up(places.root, scale=1)
        for site, folder in programs.items():
            for program in etcd.programs(places, site).iterdir():
                program.unlink()
                if (folder / program.name).exists():
                    shutil.copy(folder / program.name, program)
        yield places
    finally:
        lab.down(places.root)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def plan(places: Places) -> Iterator[Plan]:
    """The lab's plan, with everything of it up; what `r0` left is removed."""
    lab.up(places.root, parts=[etcd.NAME])
    loaded = load_plan(lab.plan_path(places.root, "etcd"))
    yield loaded
    host = loaded.source.host("kv1")
    host.run(["rm", "-rf", f"{host.work_dir}/r0"])
    loaded.source.close()
    loaded.recovery.close()


def engine_of(plan: Plan) -> Etcd:
    assert isinstance(plan.engine, Etcd)
    return plan.engine


def living(plan: Plan, password: str = "", user: str = "root") -> Etcdctl:
    """The live source, asked as the engine asks it."""
    engine = engine_of(plan)
    source = engine.source
    known = source.password if user == "root" else engine.application.password
    # East's vault has no password of the application's: that is on its own host.
    domain = plan.source if user == "root" else plan.recovery
    assert known is not None
    secret = SecretStr(password) if password else domain.secret(known)
    host = plan.source.host(source.host)
    return Etcdctl(host, source.bin_dir, source.endpoints, source.ca_file, user, secret)


def failed(spec: CheckSpec, *words: str) -> Check:
    check = run_check(spec)
    assert check.status is CheckStatus.FAILED, check
    for word in words:
        assert word in str(check.actual), check
    return check


def status(spec: CheckSpec) -> CheckStatus:
    return run_check(spec).status


def test_every_check_can_fail(plan: Plan) -> None:
    """The living source is not what should have come of it."""
    root, engine = living(plan), engine_of(plan)
    facts = engine.survey(plan.source)
    failed(checks.identity(root, facts), "the cluster has the source's id", "member kv1 has an id")
    failed(checks.membership(root, engine.target), "kv1 is at https://")
    other = engine.target.model_copy(update={"members": engine.target.members[:2]})
    failed(checks.membership(root, other), "kv3 is a member")
    since = LastLook(users=("gone",), roles=("lost",))
    more = replace(facts, users=("gone",), roles=("lost",), since=since)
    failed(integrity.logins(root, more), "user gone", "lost")
    now = round(time.time())
    lease = replace(facts, leases={"4711": 3600}, leases_at=now)
    failed(integrity.leases(root, lease), "lease 1267 is missing")
    ended = replace(lease, leases={"4711": 1}, leases_at=now - 60)
    assert status(integrity.leases(root, ended)) is CheckStatus.PASSED
    wrong = living(plan, "not the password")
    failed(checks.login(wrong, engine.application, facts), "authentication failed")
    # Nobody serves where the restored cluster is going to be.
    failed(checks.leader(root, engine.target), "0 leaders")
    at = facts.revision
    member = engine.living(plan.source)
    read = root.read("r0", at)
    same = Snapshot(at, read.keys, facts.bytes, digest=read.digest, live=read.keys)
    facts = replace(facts, snapshot=same)
    there = engine.target.model_copy(
        update={
            "members": tuple(
                member.model_copy(update={"address": urlsplit(url).hostname})
                for member, url in zip(engine.target.members, engine.source.endpoints, strict=True)
            )
        }
    )

    def key_space(**other: Any) -> CheckSpec:
        return integrity.key_space(root, there, replace(same, **other), "r0")

    assert status(key_space()) is CheckStatus.PASSED
    failed(key_space(digest="1"), "SHA-256 ")
    failed(integrity.revision(root, same), "it is at", f"revision {at} can still be")
    # Compacted since: only the digest tells.
    root.text("compact", str(at - 1))
    assert status(key_space()) is CheckStatus.PASSED
    failed(key_space(digest="1"), "SHA-256 ")
    assert status(key_space(digest=None)) is CheckStatus.UNKNOWN
    with pytest.raises(Compacted):
        member.hash(at - 2)
    with pytest.raises(AgentFailed, match="compacted"):
        root.read("r0", at - 2)
    forbidden = living(plan, user="shop")
    other_keys = engine.application.model_copy(update={"prefix": "/not-the-shop/"})
    failed(checks.login(forbidden, other_keys, facts), "permission denied")
    failed(checks.quorum_write(forbidden, other_keys, there, "r0"), "permission denied")
    with pytest.raises(LoginRefused):
        checks.quorum_write(wrong, engine.application, there, "r0").run()
    with pytest.raises(TransientError, match="it has 3 members"):
        checks.whole(root, other)
    checks.whole(root, there)
    assert access.is_protected(root)
    assert status(checks.leader(root, there)) is CheckStatus.PASSED


def test_a_hash_of_what_is_compacted_up_to_its_end(plan: Plan, places: Places) -> None:
    """An idle cluster that compacts: its newest revision is the compacted one."""
    processes.kill_service(places, "east-etcd-writer")
    try:
        member = engine_of(plan).living(plan.source)
        head = engine_of(plan).survey(plan.source).revision
        member.text("compact", "--physical", str(head))
        digest, compacted = member.hash(head)
        assert (digest != "0", compacted) == (True, head)
        assert member.read("r0", head).keys
    finally:
        lab.up(places.root)


def test_keys_that_look_like_options(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocks.engines.etcd.etcdctl._PAGE", 2)
    root = living(plan)
    keys = ["--", "--limit=1", "-x", "-y"]
    for key in keys:
        root.text("put", "--", key, "value")
    try:
        assert [item.key.decode() for item in root.all("-")] == keys
    finally:
        root.text("del", "--prefix", "--", "-")


def through_the_gateway(root: Etcdctl, call: str, token: str = "", **body: str) -> Any:
    """What etcd's own HTTP interface answers: no argument of etcdctl's can hold a NUL."""
    context = ssl.create_default_context(cafile=root.ca_file)
    if root.cert_file:
        context.load_cert_chain(root.cert_file, root.key_file)
    request = urllib.request.Request(
        f"{root.endpoints[0]}/v3/{call}",
        json.dumps(body).encode(),
        {"Authorization": token} if token else {},
    )
    with urllib.request.urlopen(request, context=context, timeout=30) as answer:
        return json.load(answer)


def test_keys_that_no_argument_can_hold(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page may end with any of them, and all begin alike."""
    monkeypatch.setattr("blocks.engines.etcd.etcdctl._PAGE", 4)
    root = living(plan)
    password = root.password.get_secret_value()
    login = through_the_gateway(root, "auth/authenticate", name=root.user, password=password)
    keys = [b"/a\0bin%02d" % number for number in range(40)]
    for key in keys:
        text = base64.b64encode(key).decode()
        through_the_gateway(root, "kv/put", login["token"], key=text, value=text)
    try:
        assert [item.key for item in root.all("/a")] == keys
        revision = int(root.at(root.endpoints[0]).status()["header"]["revision"])
        there = root.count("--prefix", f"--rev={revision}", "--", "")
        assert root.read("r0", revision).keys == there
    finally:
        root.text("del", "--prefix", "--", "/a")


def test_an_etcdctl_that_prints_more_than_answers(plan: Plan, open_directory: Path) -> None:
    """A wrapper, of a bastion, say: what it prints before is no answer."""
    root = living(plan)
    wrapper = open_directory / "etcdctl"
    wrapper.write_text(f'#!/bin/sh\necho "Authorized use only"\nexec {root.bin_dir}/etcdctl "$@"\n')
    wrapper.chmod(0o755)
    wrapped = replace(root, bin_dir=str(open_directory))
    assert wrapped.get("/shop/settings/", "--prefix") == root.get("/shop/settings/", "--prefix")


def test_all_keys_are_found_page_by_page(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocks.engines.etcd.etcdctl._PAGE", 100)
    root = living(plan)
    keys = [item.key for item in root.all("/shop/settings/")]
    assert len(set(keys)) == len(keys) == SETTINGS
    every = [item.key for item in root.all("")]
    assert len(set(every)) == len(every) > SETTINGS > 300
    assert set(keys) < set(every)


def test_a_dead_member_keeps_nobody_from_a_backup(plan: Plan, places: Places) -> None:
    processes.kill_service(places, "east-etcd-kv1")
    try:
        facts = engine_of(plan).survey(plan.source)
        assert len(facts.members) == 3
    finally:
        lab.up(places.root)


# -- members that die ---------------------------------------------------------------------------


@pytest.fixture
def ground(
    places: Places,
    prefect_server: None,  # noqa: ARG001 (it is to be up)
    tmp_path: Path,
) -> Iterator[Ground]:
    """The lab, whole, to be broken; nothing may be left in it."""
    lab.up(places.root, parts=[etcd.NAME])
    ground = Ground(places, tmp_path, "etcd")
    yield ground
    lab.up(places.root)
    assert ground.left() == []
    ground.close()


def rehearsed(ground: Ground, listener: Listener | None = None, *, keep: str = "") -> Record:
    """A rehearsal of the ground's plan; the clock of a busy machine is nobody's concern."""
    with watching(Watcher(listener)) as watcher:
        rehearse(
            plan=str(ground.write()),
            select="fresh",
            results=str(ground.folder / "records"),
            keep=keep,
            return_state=True,
        )
    assert watcher.record is not None
    return watcher.record


def found(record: Record) -> set[tuple[str, str]]:
    """Id and subject of what was found and is not accepted."""
    return {(item.id, item.subject) for item in record.findings if item.accepted is None}


@mechanisms.NODES
def test_a_member_that_dies_during_the_restore(ground: Ground) -> None:
    """Killed before it serves: the others wait for it, and nobody is told that all is well."""
    dies = 'case "$*" in */kv2/*) "$REAL" "$@" & sleep 0.02; kill -9 $!; exit 1 ;; esac\n'
    with ground.wrapped("etcd", f'{dies}exec "$REAL" "$@"'):
        record = rehearsed(ground)
    assert found(record) == {("restore-failed", "west/kv2")}
    assert "has ended" in next(i.evidence for i in record.findings if i.id == "restore-failed")
    assert (record.verdict, exit_code(record)) == (Verdict.FAILED, 1)


@contextmanager
def dying_host(ground: Ground) -> Iterator[None]:
    """While its snapshot is restored, the SSH server of west's kv2 is killed, once."""
    pid = processes.running(ground.places, "west-ssh-kv2")
    once = ground.places.host("west", "kv2") / "once"
    kill = f'[ -e "{once}" ] || {{ : >"{once}"; kill -9 {pid}; }}'
    script = f'case "$*" in *--name=kv2*) {kill} ;; esac\nexec "$REAL" "$@"'
    try:
        with ground.wrapped(ground.living(LiveEtcd).snapshot_tool, script):
            yield
        assert once.exists()
    finally:
        once.unlink(missing_ok=True)


@mechanisms.NODES
def test_a_host_that_dies_during_the_restore(ground: Ground) -> None:
    with dying_host(ground):
        record = rehearsed(ground)
    # What runs on a host that is gone is unknown: the fence stays until a sweep can tell.
    assert found(record) == {
        ("host-unreachable", "west/kv2"),
        ("leftovers", "west/kv2"),
        ("fence-stays", "east"),
    }
    assert (record.verdict, exit_code(record)) == (Verdict.FAILED, 1)
    ground.heal()
    plan = load_plan(ground.write())
    assert sweep_plan(plan, everything=True, results=ground.folder / "records").remaining == ()
    plan.source.close()
    plan.recovery.close()


@mechanisms.NODES
def test_a_host_that_comes_back_during_the_restore(ground: Ground) -> None:
    """The stage is tried again, from nothing."""
    service = ground.service("west-ssh-kv2")

    def revive() -> None:
        while not stop.is_set():
            if processes.running(ground.places, service.name) is None:
                processes.start(ground.places, service, service_account())
            stop.wait(0.2)

    stop, nurse = threading.Event(), threading.Thread(target=revive)
    nurse.start()
    try:
        with dying_host(ground):
            record = rehearsed(ground)
    finally:
        stop.set()
        nurse.join()
    assert found(record) == set()
    assert record.verdict is Verdict.VERIFIED
    assert next(stage.attempts for stage in record.stages if stage.name == "restore") == 2


# -- the old cluster comes back -----------------------------------------------------------------


class Told(Silence):
    """Does something when a stage begins."""

    def __init__(self, stage: str, do: Callable[[], object]) -> None:
        self.stage = stage
        self.do = do

    def stage_started(self, stage: str, attempt: int) -> None:  # noqa: ARG002 (the first is the only one)
        if stage == self.stage:
            self.do()


@mechanisms.NODES
def test_the_old_cluster_comes_back(ground: Ground) -> None:
    """Somebody lifts the fence by hand: two clusters live side by side, and farside says so."""
    told = Told("verify", lambda: lab.up(ground.places.root))
    record = rehearsed(ground, told, keep="1h")
    plan = load_plan(ground.write())
    try:
        leaking = {item for item in record.findings if item.accepted is None}
        assert {item.id for item in leaking} == {"fence-leaks"}
        assert {item.stage for item in leaking} == {"verify"}
        members = {f"{address}:{port}" for (address, port), _ in etcd.listens(ground.east).values()}
        assert members < {item.subject for item in leaking}
        assert (record.verdict, exit_code(record)) == (Verdict.FAILED, 1)
        bad = {c.name: c.status for c in record.checks if c.status is not CheckStatus.PASSED}
        # Who called is not known once the fence is lifted.
        assert bad == {"calls-to-source": CheckStatus.UNKNOWN, "fence": CheckStatus.FAILED}
        old, new = living(plan), restored(plan)
        for mine, other, domain in ((old, new, plan.source), (new, old, plan.recovery)):
            answer, elsewhere = (client.json("member", "list") for client in (mine, other))
            assert answer["header"]["cluster_id"] != elsewhere["header"]["cluster_id"]
            assert not {m["ID"] for m in answer["members"]} & {
                m["ID"] for m in elsewhere["members"]
            }
            assert len(answer["members"]) == 3
            for member in answer["members"]:
                (url,) = member["peerURLs"]
                assert domain.belongings.owns_address(str(urlsplit(url).hostname))
            key = f"/shop/written-in-{domain.name}"
            mine.put(key, "here")
            assert [item.value for item in mine.get(key)] == [b"here"]
            assert other.get(key) == []
            mine.text("del", key)
    finally:
        assert sweep_plan(plan, everything=True, results=ground.folder / "records").remaining == ()
        plan.source.close()
        plan.recovery.close()


def restored(plan: Plan) -> Etcdctl:
    """The restored cluster's administrator, at whichever members still live."""
    engine = engine_of(plan)
    target, host = engine.target, plan.recovery.host("kv1")
    assert target.password is not None
    secret = plan.recovery.secret(target.password)
    return Etcdctl(host, target.bin_dir, target.endpoints, target.ca_file, "root", secret)


def test_what_restores_a_snapshot_is_asked_what_it_can(tmp_path: Path) -> None:
    """Programs of other versions: etcdutl is taken where there is one, and believed."""
    host = LocalHost(name="here")

    def install(name: str, *options: str) -> None:
        lines = "".join(f"      {option}   does it\\n" for option in options)
        (tmp_path / name).write_text(f"#!/bin/sh\nprintf 'USAGE: restore\\n{lines}'\n")
        (tmp_path / name).chmod(0o755)

    install("etcdctl", "--data-dir", "--bump-revision-not")
    old = snapshot_tool(host, str(tmp_path))
    assert (old.argv, old.raises_revision) == ((f"{tmp_path}/etcdctl", "snapshot"), False)
    install("etcdutl", "--bump-revision uint", "--data-dir", "--mark-compacted")
    new = snapshot_tool(host, str(tmp_path))
    assert (new.argv, new.raises_revision) == ((f"{tmp_path}/etcdutl", "snapshot"), True)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("etcd Version: 3.5.1\nGit SHA: e8732fb5f", (3, 5)),
        ("etcd Version: 3.4.23\n", (3, 4)),
        ("sh: etcd: not found", (0, 0)),
    ],
)
def test_version(said: str, version: tuple[int, int]) -> None:
    assert compare.version_of(said) == version
