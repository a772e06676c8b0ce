"""What etcd's checks say of damage, of what they cannot know, and of a service that asks for less.

One member of Debian's etcd with TLS, which stands for the restored cluster.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from blocks.engines.checks import CheckSpec, run_check
from blocks.engines.common.capping import NAMED, OTHERS, capped
from blocks.engines.etcd import (
    Etcd,
    access,
    alarms,
    capture,
    checks,
    compare,
    etcdctl,
    integrity,
    last_look,
    on_host,
    survey,
)
from blocks.engines.etcd.etcdctl import Etcdctl, NoSpace
from blocks.engines.etcd.facts import EtcdFacts, LastLook, Snapshot
from blocks.engines.etcd.integrity import Accounts
from blocks.engines.etcd.last_look import Counts
from blocks.engines.etcd.on_host import KeySpace
from blocks.engines.etcd.plan import Application, Member, TargetCluster
from blocks.engines.etcd.restore import RAISE, configuration, snapshot_tool
from blocks.engines.etcd.restored import EtcdRestored
from blocks.errors import PermanentError, TransientError
from blocks.evidence.findings import finding
from blocks.evidence.record import Check, CheckStatus
from blocks.hosts.local import LocalHost
from blocks.ownership import Belongings
from blocks.remote import resolving
from blocks.remote.failures import AgentFailed
from tests.blocks.engines.test_etcd import through_the_gateway
from tests.blocks.engines.worlds import need_debian
from tests.servers import certificate, free_port

APP = Application(user="shop", password="shop", prefix="/shop/")
NOTHING = EtcdFacts("3.5.1", "1", (), 1, 1, False, (), (), {}, snapshot=Snapshot(1, 0, 0))
"""The facts of a source that holds nothing."""


@dataclass(frozen=True)
class One:
    """A cluster of one member, and the plan's target that it stands for."""

    root: Etcdctl
    target: TargetCluster
    folder: Path

    def snapshot(self) -> Snapshot:
        """The facts of a snapshot that is taken now."""
        path = self.folder / "s.db"
        self.root.text("snapshot", "save", str(path))
        found = etcdctl.read_keys(self.root.host, "r0", KeySpace(snapshot=str(path)))
        return Snapshot(
            revision=found.revision,
            keys=found.keys,
            bytes=path.stat().st_size,
            compacted=found.compacted,
            largest=found.largest,
            digest=found.digest,
            lasting=found.lasting,
            live=found.keys,
        )

    def key_space(self, kept: Snapshot, **other: Any) -> CheckSpec:
        return integrity.key_space(self.root, self.target, replace(kept, **other), "r0")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., One]]:
    """Starts a member with some options of its own."""
    need_debian("etcd-server", "/usr/bin/etcd")
    need_debian("etcd-client", "/usr/bin/etcdctl")
    certificate(tmp_path)
    running = []

    def begin(*options: str, shows: bool = False, programs: str = "/usr/bin") -> One:
        client_port, peer_port = free_port(), free_port()
        url, peer = f"https://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
        tls = [f"--cert-file={tmp_path}/cert.pem", f"--key-file={tmp_path}/key.pem"]
        log = (tmp_path / "etcd.log").open("wb")
        running.append(
            subprocess.Popen(
                [
                    *(f"{programs}/etcd", "--name=m", f"--data-dir={tmp_path}/data", *tls),
                    *(f"--listen-client-urls={url}", f"--advertise-client-urls={url}"),
                    *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
                    *(f"--initial-cluster=m={peer}", "--unsafe-no-fsync", *options),
                ],
                stdout=log,
                stderr=log,
                cwd=tmp_path,
            )
        )
        host = LocalHost(name="here", work_dir=str(tmp_path / "work"), python=sys.executable)
        shown = (f"{tmp_path}/cert.pem", f"{tmp_path}/key.pem") if shows else ("", "")
        root = Etcdctl(
            host, programs, (url,), f"{tmp_path}/ca.pem", "", SecretStr(""), *shown, timeout=20
        )
        member = Member(
            host="m",
            address="127.0.0.1",
            client_port=client_port,
            peer_port=peer_port,
            data_dir="/d",
            cert_file="/c",
            key_file="/k",
        )
        target = TargetCluster(members=(member,), bin_dir="/usr/bin", ca_file="/ca")
        await_true(lambda: serves(root))
        return One(root, target, tmp_path)

    try:
        yield begin
    finally:
        for process in running:
            process.send_signal(signal.SIGKILL)
            process.wait()


def serves(root: Etcdctl) -> bool:
    try:
        return bool(int(root.status()["leader"]))
    except (TransientError, PermanentError):
        return False


def await_true(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.1)


def failed(spec: CheckSpec, *words: str) -> Check:
    check = run_check(spec)
    assert check.status is CheckStatus.FAILED, check
    for word in words:
        assert word in str(check.actual), check
    return check


def status(spec: CheckSpec) -> CheckStatus:
    return run_check(spec).status


def test_an_accounts_environment_leads_nowhere_else(
    start: Callable[..., One], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it differs from an option, etcdctl refuses; what is no option, it believes."""
    one = start()
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", "https://192.0.2.1:2379")
    monkeypatch.setenv("ETCDCTL_USER", "other:secret")
    monkeypatch.setenv("ETCDCTL_CERT", "/nowhere")
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1:3128")
    one.root.put("/shop/a", "1")
    assert one.root.count("/shop/a") == 1
    assert one.root.read("r0", 0).keys == 1
    monkeypatch.setenv("ETCDCTL_WRITE_OUT", "table")
    argv = [*etcdctl.ALONE, *snapshot_tool(one.root.host, "/usr/bin").argv, "status"]
    one.root.text("snapshot", "save", f"{one.folder}/s.db")
    said = one.root.host.run([*argv, f"{one.folder}/s.db", "--write-out=json"]).text
    assert json.loads(said)["totalKey"] > 0


def test_names_in_values_are_resolved_where_they_are_used(start: Callable[..., One]) -> None:
    """A name says nothing of whose it is: what it leads to on the recovery host does."""
    one, foreign = start(), Belongings(networks=("127.0.0.0/8",))
    one.root.put("/shop/config", "upstream: https://localhost:8443/api, or 127.0.0.9")
    read = one.root.read("r0", 0, foreign)
    assert read.hosts == {"localhost": "key /shop/config"}
    (found,) = resolving.leading_to(one.root.host, "r0", read.hosts, foreign, [])
    assert (found.id, found.subject) == ("name-resolves-to-source", "localhost")
    assert [item.text for item in read.mentions] == ["127.0.0.9"]


def put_many(root: Etcdctl, count: int, size: int = 10) -> None:
    for first in range(0, count, 100):
        lines = "".join(f'put k{n:05} "{"x" * size}{n}"\n' for n in range(first, first + 100))
        argv = [*root.argv(20), "txn"]
        root.host.run(argv, input=f"\n{lines}\n\n".encode())


def test_keys_are_compared_whatever_their_number(start: Callable[..., One]) -> None:
    """The file and the service have one digest; what was changed, deleted or added has not."""
    one = start()
    put_many(one.root, 1500)
    one.root.put("/shop/a", "1")
    one.root.put("/shop/a", "2")
    one.root.text("del", "k00007")
    lease = one.root.text("lease", "grant", "3600").split()[1]
    one.root.text("put", "/shop/leased", "x", f"--lease={lease}")
    facts = one.snapshot()
    assert facts.live == 1501
    assert status(one.key_space(facts)) is CheckStatus.PASSED
    # What was compacted since makes no difference.
    one.root.text("compact", str(facts.revision - 1))
    assert status(one.key_space(facts)) is CheckStatus.PASSED
    counts = last_look.counts_at(one.root, facts.revision, "/shop/")
    assert counts == Counts(at_source=1501, below_prefix=2)
    assert status(one.key_space(facts, **asdict(counts))) is CheckStatus.PASSED
    failed(one.key_space(facts, at_source=1502), "has 1501 keys, the source 1502 at its revision")
    failed(one.key_space(facts, digest="0" * 64), "1501 keys instead of 1501, SHA-256")
    unknown = run_check(one.key_space(facts, digest=None))
    assert (unknown.status, "not compared" in str(unknown.actual)) == (CheckStatus.UNKNOWN, True)
    # A lease that ends takes its key along: that is no loss.
    one.root.text("lease", "revoke", lease)
    assert status(one.key_space(facts)) is CheckStatus.PASSED
    one.root.text("del", "k00008")
    failed(one.key_space(facts), "changed or deleted")
    one.root.put("k00008", "x" * 10 + "8")
    failed(one.key_space(facts), "changed or deleted")


def test_large_values_behind_small_ones_fit_into_memory(
    start: Callable[..., One], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is no larger than agreed, whatever the pages before were like."""
    monkeypatch.setattr(on_host, "_PAGE_BYTES", 2**20)
    pages, page = [], on_host._page

    def noted(space: KeySpace, first: str, limit: int) -> list[on_host._Key]:
        found = page(space, first, limit)
        pages.append(sum(len(key.value) for key in found))
        return found

    monkeypatch.setattr(on_host, "_page", noted)
    one = start()
    put_many(one.root, 200, 1)
    for n in range(20):
        text = base64.b64encode(b"z%02d" % n).decode()
        through_the_gateway(
            one.root, "kv/put", key=text, value=base64.b64encode(bytes(2**17)).decode()
        )
    facts = one.snapshot()
    assert facts.largest == 2**17 + 3
    read = on_host._read(KeySpace(argv=one.root.argv(20), largest=2**17 + 3))
    assert (read.digest, read.keys) == (facts.digest, 220)
    assert 0 < max(pages) <= 2**20


def test_too_many_keys_alike_are_no_key_space(
    start: Callable[..., One], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = start().root
    for n in range(40):
        text = base64.b64encode(b"/a\0%02d" % n).decode()
        through_the_gateway(root, "kv/put", key=text, value=text)
    assert root.read("r0", 0).keys == 40
    with pytest.raises(AgentFailed, match="keys are alike up to a NUL byte"):
        root.read("r0", 0, largest=2**22)
    monkeypatch.setattr("blocks.engines.etcd.etcdctl._PAGE", 4)
    assert len(list(root.all("/a"))) == 40
    monkeypatch.setattr("blocks.engines.etcd.etcdctl._PAGE", 2)
    with pytest.raises(PermanentError, match="32 keys are alike up to a NUL byte"):
        list(root.all("/a"))


def test_a_key_may_be_longer_than_an_argument(
    start: Callable[..., One], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page may end with any of them; the least of Linux's limits is 128 KiB."""
    one = start()
    for n in range(6):
        key = b"/shop/" + b"'" * 200_000 + b"%d" % n if n % 2 else b"/shop/%d" % n
        text = base64.b64encode(key).decode()
        through_the_gateway(one.root, "kv/put", key=text, value="eA==")
    monkeypatch.setattr("blocks.engines.etcd.etcdctl._PAGE", 2)
    assert len(list(one.root.all("/shop/"))) == 6
    facts = one.snapshot()
    assert facts.live == 6
    monkeypatch.setattr(on_host, "_PAGE_KEYS", 2)
    assert facts.largest is not None
    space = KeySpace(argv=one.root.argv(20), largest=facts.largest)
    assert on_host._read(space).digest == facts.digest


def test_a_lease_may_have_a_negative_id(start: Callable[..., One]) -> None:
    """Its id is an int64: in a snapshot's file it looks like one of 2^64 more."""
    one = start()
    through_the_gateway(one.root, "lease/grant", TTL="6000", ID="-5")
    key = base64.b64encode(b"/shop/leased").decode()
    through_the_gateway(one.root, "kv/put", key=key, value=key, lease="-5")
    facts = one.snapshot()
    assert status(one.key_space(facts)) is CheckStatus.PASSED
    leases = replace(NOTHING, leases=survey.leases(one.root), leases_at=round(time.time()))
    assert list(leases.leases) == ["-5"]
    assert status(integrity.leases(one.root, leases)) is CheckStatus.PASSED
    one.root.text("lease", "revoke", "--", "-5")
    failed(integrity.leases(one.root, leases), "lease -5 is missing")


@pytest.mark.parametrize("newer", [False, True])
def test_an_idle_source_that_is_compacted_at_its_head(
    start: Callable[..., One], tmp_path: Path, newer: bool
) -> None:
    """What was deleted last is gone from the file, too: its newest revision is an older one."""
    source = start()
    for value in ("1", "2"):
        source.root.put("/shop/a", value)
        source.root.put("/shop/b", value)
    source.root.text("del", "/shop/a")
    head = int(source.root.status()["header"]["revision"])
    source.root.text("compact", "--physical", str(head))
    facts = source.snapshot()
    assert (facts.revision < head, facts.compacted, facts.live) == (True, head, 1)
    programs = os.environ.get("FARSIDE_NEWER_ETCD", "/nowhere") if newer else "/usr/bin"
    if newer:
        need_debian("etcd 3.5.10 or later, in FARSIDE_NEWER_ETCD,", f"{programs}/etcdutl")
    tool = snapshot_tool(source.root.host, programs)
    argv = [*etcdctl.ALONE, *tool.argv, "restore", f"{tmp_path}/s.db", f"--data-dir={tmp_path}/r"]
    source.root.host.run([*argv, *(RAISE.split() if newer else ())])
    restored = start(f"--data-dir={tmp_path}/r", programs=programs)
    assert status(restored.key_space(facts)) is CheckStatus.PASSED
    if newer:
        assert status(integrity.revision(restored.root, facts)) is CheckStatus.PASSED
    # An older set does not say what was compacted: the keys that are served now are compared.
    assert status(restored.key_space(facts, compacted=0)) is CheckStatus.PASSED
    # The application's own write comes first, and leaves nothing but a newer revision.
    writing = checks.quorum_write(restored.root, APP, restored.target, "r0")
    assert status(writing) is CheckStatus.PASSED
    assert status(restored.key_space(facts)) is CheckStatus.PASSED
    restored.root.put("/shop/c", "3")
    restored.root.text("del", "/shop/b")
    failed(restored.key_space(facts), "changed or deleted")


def test_a_write_that_breaks_off_leaves_no_key(
    start: Callable[..., One], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the keys would differ from the source's, for which no restore is to blame."""
    one = start()
    one.root.put("/shop/a", "1")
    facts = one.snapshot()

    def silent(*_: object) -> None:
        raise TransientError("it does not answer", operation="etcdctl")

    with monkeypatch.context() as patch:
        patch.setattr(Etcdctl, "get", silent)
        writing = checks.quorum_write(one.root, APP, one.target, "r0")
        assert status(writing) is CheckStatus.UNKNOWN
    assert status(one.key_space(facts)) is CheckStatus.PASSED


def test_a_heartbeat_is_as_new_as_its_newest_row(start: Callable[..., One]) -> None:
    """No other row's time is read: an odd one hides nothing."""
    root = start().root
    for number, value in ((1, "odd"), (2, "2026-01-02T03:04:05+00:00")):
        root.put(f"/beats/{number}", value)
    service = service_of(NOTHING)
    service.__dict__["_root"] = root
    ticks = service.heartbeat("", "/beats/")
    assert (ticks.count, ticks.newest_id, ticks.first_missing) == (2, 2, None)
    assert str(ticks.newest_at) == "2026-01-02 03:04:05+00:00"


def test_a_snapshot_file_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    host = LocalHost(name="here", work_dir=str(tmp_path / "work"), python=sys.executable)
    for number, damage in enumerate((b"", b"no snapshot" * 1000, bytes(32768))):
        path = tmp_path / f"{number}.db"
        path.write_bytes(damage)
        assert capture._read(host, "r0", str(path)) is None


def fill(root: Etcdctl) -> None:
    for n in range(50):
        root.put(f"k{n}", "x" * 20000)


def test_an_alarm_is_said_for_what_it_is(start: Callable[..., One]) -> None:
    one = start("--quota-backend-bytes=200000")
    assert status(alarms.alarms(one.root)) is CheckStatus.PASSED
    with pytest.raises(NoSpace):
        fill(one.root)
    await_true(lambda: one.root.alarms() == ["NOSPACE"])
    found = failed(alarms.alarms(one.root), "alarm NOSPACE is raised", "takes no writes")
    assert (found.finding, found.subjects) == ("usable-not-restored", ("alarm NOSPACE",))
    writing = checks.quorum_write(one.root, APP, one.target, "r0")
    written = failed(writing, "database space exceeded")
    assert (written.finding, written.subjects) == (found.finding, found.subjects)
    assert status(checks.leader(one.root, one.target)) is CheckStatus.PASSED
    (told,) = alarms.of_source(replace(NOTHING, alarms=last_look.alarms(one.root)))
    assert (told.id, told.subject, told.stage) == (found.finding, "alarm NOSPACE", "")


def test_a_login_that_proves_nothing_does_not_pass(start: Callable[..., One]) -> None:
    one = start()
    root = one.root
    nobody_knows = checks.login(root, APP.model_copy(update={"password": None}), NOTHING)
    assert status(nobody_knows) is CheckStatus.UNKNOWN

    def counted(at_snapshot: int | None) -> EtcdFacts:
        kept = Snapshot(1, 0, 0, below_prefix=at_snapshot)
        return replace(NOTHING, below_prefix=3, snapshot=kept)

    failed(checks.login(root, APP, counted(2)), "0 keys, where the source had 2")
    anybody = APP.model_copy(update={"user": "", "password": None})
    # Deleted since the survey; or nobody counted them at the snapshot's revision.
    for at_snapshot, word in ((0, "at the source neither"), (None, "or deleted")):
        found = run_check(checks.login(root, anybody, counted(at_snapshot)))
        assert (found.status, word in str(found.actual)) == (CheckStatus.UNKNOWN, True)
    root.put("/shop/a", "1")
    open_to_all = APP.model_copy(update={"user": "", "password": None})
    assert status(checks.login(root, open_to_all, NOTHING)) is CheckStatus.PASSED
    failed(checks.login(root, APP, NOTHING), "no client is asked for a password")
    for name in ("root", "shop"):
        root.host.run([*root.argv(20), "user", "add", name, "--interactive=false"], input=b"pw\n")
    root.text("user", "grant-role", "root", "root")
    root.text("role", "add", "shop")
    root.text("role", "grant-permission", "shop", "readwrite", "--prefix=true", "/shop/")
    root.text("user", "grant-role", "shop", "shop")
    root.text("auth", "enable")
    shop = replace(root, user="shop", password=SecretStr("pw"))
    assert status(checks.login(shop, APP, NOTHING)) is CheckStatus.PASSED
    failed(
        checks.login(replace(shop, password=SecretStr("no")), APP, NOTHING), "authentication failed"
    )


def test_a_service_that_asks_for_less_fails(start: Callable[..., One]) -> None:
    one = start()
    same = replace(NOTHING, client_certificates=False, since=LastLook(auth=True))
    assert status(access.access(one.root, one.target, same)) is CheckStatus.PASSED
    certificates = access.CERTIFICATES  # as preflight calls it
    for asks, word, about in (
        (replace(same, auth=True), "asks for no user", "users"),
        (replace(same, client_certificates=True), "no client cert", certificates),
    ):
        found = failed(access.access(one.root, one.target, asks), word)
        assert (found.finding, found.subjects) == ("service-more-open", (about,))
    silent = one.target.members[0].model_copy(update={"client_port": free_port()})
    nowhere = one.target.model_copy(update={"members": (silent,)})
    with pytest.raises(TransientError):
        access.access(replace(one.root, timeout=2), nowhere, same).run()


def test_what_the_source_changed_itself_is_no_damage(start: Callable[..., One]) -> None:
    """Users, roles and authentication have no revision: what they were at either look is right."""
    root, target = (one := start()).root, one.target

    def surveyed() -> EtcdFacts:
        found = last_look.look_again(root)
        return replace(NOTHING, client_certificates=False, **known(found))

    def looked(first: EtcdFacts) -> EtcdFacts:
        return replace(first, since=last_look.look_again(root))

    def statuses(facts: EtcdFacts) -> tuple[CheckStatus, CheckStatus]:
        return status(integrity.logins(root, facts)), status(access.access(root, target, facts))

    for name in ("clerk", "leaver"):
        root.host.run([*root.argv(20), "user", "add", name, "--interactive=false"], input=b"pw\n")
    root.text("role", "add", "reader")
    first = surveyed()
    assert first.users == ("clerk", "leaver")
    assert statuses(looked(first)) == (CheckStatus.PASSED, CheckStatus.PASSED)
    lost = replace(first, auth=True, since=replace(looked(first).last, auth=True))
    root.text("user", "delete", "leaver")
    root.text("role", "delete", "reader")
    # The source's own doing; not so, where it had them at both looks; unknown without a second.
    passed = run_check(integrity.logins(root, looked(first)))
    assert passed.status is CheckStatus.PASSED
    assert "dropped at the source since the survey: user leaver; role reader" in str(passed.actual)
    assert (
        status(access.access(root, target, looked(replace(first, auth=True)))) is CheckStatus.PASSED
    )
    failed(integrity.logins(root, lost), "user leaver is missing", "role reader is missing")
    failed(access.access(root, target, lost), "asks for no user")
    unknown = (CheckStatus.UNKNOWN, CheckStatus.UNKNOWN)
    assert statuses(replace(first, auth=True)) == unknown
    assert statuses(replace(first, auth=True, since=LastLook())) == unknown


def known(look: LastLook) -> dict[str, Any]:
    """What a look found, as parts of a survey."""
    found = {item.name: getattr(look, item.name) for item in fields(look)}
    return {name: value for name, value in found.items() if value is not None}


def test_what_users_and_roles_are_granted_is_compared(start: Callable[..., One]) -> None:
    root = start().root
    for name in ("clerk", "leaver"):
        root.host.run([*root.argv(20), "user", "add", name, "--interactive=false"], input=b"pw\n")
    root.text("role", "add", "reader")
    root.text("role", "grant-permission", "reader", "read", "--prefix=true", "/shop/")
    root.text("user", "grant-role", "clerk", "reader")
    look = last_look.look_again(root)
    first = replace(NOTHING, **known(look))
    assert first.granted is not None
    assert list(first.granted) == ["user clerk", "user leaver", "role reader"]
    both = replace(first, since=look)
    assert status(integrity.logins(root, both)) is CheckStatus.PASSED
    root.text("role", "revoke-permission", "reader", "--prefix=true", "/shop/")
    root.text("user", "revoke-role", "clerk", "reader")
    else_ = "is granted something else"
    lost = failed(integrity.logins(root, both), f"role reader {else_}", f"user clerk {else_}")
    assert lost.finding == "login-missing"
    # The source's own doing; unknown without a last look; nothing to compare in an older set.
    last = last_look.look_again(root)
    passed = run_check(integrity.logins(root, replace(first, since=last)))
    assert passed.status is CheckStatus.PASSED
    assert "changed at the source since the survey: user clerk; role reader" in str(passed.actual)
    assert status(integrity.logins(root, first)) is CheckStatus.UNKNOWN
    older = replace(first, granted=None)
    seen = LastLook(users=first.users, roles=first.roles)
    assert status(integrity.logins(root, replace(older, since=seen))) is CheckStatus.PASSED
    # Nobody shows what more of them there are, nor a password.
    facts = replace(both, snapshot=Snapshot(1, 0, 0, digest="1"), auth=True)
    assert "users' passwords" in not_verified(facts)
    assert "keys on leases" not in not_verified(facts)
    facts = replace(facts, leases={"-5": 6000})
    assert "keys on leases" in not_verified(facts)
    assert "the set does not say" in not_verified(replace(facts, granted=None))


def not_verified(facts: EtcdFacts) -> str:
    """What no check of a service looks at that was restored of such a source."""
    return "\n".join(service_of(facts).not_verified)


def service_of(facts: EtcdFacts) -> EtcdRestored:
    """A service that was restored of such a source."""
    using: Any = SimpleNamespace(facts=facts)
    made = engine({}, {})
    return EtcdRestored(
        using,
        nodes=(),
        administrator="root",
        target=made.target,
        application=made.application,
        raised=False,
    )


def test_a_member_that_differs_in_what_it_grants_is_seen(
    start: Callable[..., One], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = start().root
    granted = {"user a": "1"}
    look = replace(last_look.look_again(root), users=("a",), granted=granted)
    facts = replace(NOTHING, users=("a",), granted=granted, since=look)
    answers = [Accounts(("a",), (), {"user a": n}) for n in ("1", "2")]
    monkeypatch.setattr(integrity, "_accounts", lambda _: answers.pop())
    two = root.at("https://a:1", "https://b:1")
    failed(integrity.logins(two, facts), "user a is granted")
    monkeypatch.setattr(integrity, "_accounts", lambda _: Accounts(("a",), (), {}))
    assert status(integrity.logins(root, facts)) is CheckStatus.UNKNOWN


def test_an_alarm_since_the_survey_is_told_before_a_restore() -> None:
    since = LastLook(alarms=("NOSPACE", "CORRUPT"))
    told = alarms.of_source(replace(NOTHING, alarms=("NOSPACE",), since=since))
    assert [item.subject for item in told] == ["alarm NOSPACE", "alarm CORRUPT"]


def test_what_cannot_be_asked_again_is_not_known(start: Callable[..., One]) -> None:
    one = start()
    gone = one.root.at(f"https://127.0.0.1:{free_port()}")
    gone = replace(gone, timeout=2)
    assert last_look.look_again(gone) == LastLook()
    assert last_look.counts_at(gone, 1, "/shop/") == Counts()
    one.root.put("/shop/a", "1")
    one.root.put("/shop/a", "2")
    one.root.text("compact", "3")
    assert last_look.counts_at(one.root, 2, "/shop/") == Counts()


def test_whether_a_certificate_is_wanted_is_seen(start: Callable[..., One], tmp_path: Path) -> None:
    one = start("--client-cert-auth", f"--trusted-ca-file={tmp_path}/ca.pem", shows=True)
    assert access.wants_certificate(one.root)
    asked = replace(NOTHING, client_certificates=True)
    assert status(access.access(one.root, one.target, asked)) is CheckStatus.PASSED


def test_mentions_are_capped_and_counted(start: Callable[..., One]) -> None:
    one = start()
    lines = "".join(f'put pod{n} "10.9.0.{n % 200 + 1}"\n' for n in range(120))
    one.root.host.run([*one.root.argv(20), "txn"], input=f"\n{lines}\n\n".encode())
    found = one.root.read("r0", 0, Belongings(networks=("10.9.0.0/16",)))
    assert (len(found.mentions), found.more) == (100, {"address": 20})
    named = [finding("address-hard-coded", item.path, "x", "verify") for item in found.mentions]
    told = capped(named, {"address-hard-coded": 20})
    assert len(told) == NAMED + 1
    assert (told[-1].subject, told[-1].evidence) == (OTHERS, "100 more like these")


def test_few_findings_stay_as_they_are() -> None:
    few = [finding("path-hard-coded", str(n), "x", "verify") for n in range(NAMED)]
    assert capped(few) == few


def test_room_is_told_whatever_the_disk_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system's name may have blanks, as may the directory that it is mounted on."""
    folder = tmp_path / "the members' disk"
    folder.mkdir()
    (tmp_path / "df").write_text(
        "#!/bin/sh\necho Filesystem 1024-blocks Used Available Capacity Mounted on\n"
        f"echo '//nas/the backups 100 90 10 90% {folder}'\n"
    )
    (tmp_path / "df").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    host = LocalHost(name="here", work_dir=str(tmp_path / "work"))
    capture._have_room(host, "r20260101-000000-aaaaaa", str(folder), 0)
    with pytest.raises(PermanentError, match="would leave too little of") as caught:
        capture._have_room(host, "r20260101-000000-aaaaaa", str(folder), 1 << 60)
    assert str(folder) in caught.value.message


LOGGED = '{"level":"warn","msg":"retrying","error":"rpc error: code = %s desc = %s"}\nError: %s\n'


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("Unauthenticated", "etcdserver: invalid auth token", etcdctl.LoginRefused),
        ("InvalidArgument", "etcdserver: user name is empty", etcdctl.LoginRefused),
        ("InvalidArgument", "etcdserver: request is too large", PermanentError),
        ("PermissionDenied", "anything", etcdctl.NotAllowed),
        ("OutOfRange", "anything", etcdctl.Compacted),
        ("ResourceExhausted", "etcdserver: mvcc: database space exceeded", etcdctl.NoSpace),
        ("ResourceExhausted", "etcdserver: too many requests", TransientError),
        ("ResourceExhausted", "grpc: received message larger than max (9 vs. 4)", PermanentError),
        ("Unavailable", "certificate of authentication failed: permission denied", TransientError),
        ("DeadlineExceeded", "x509: certificate signed by unknown authority", etcdctl.Untrusted),
        ("FailedPrecondition", "etcdserver: authentication is not enabled", PermanentError),
    ],
)
def test_errors_are_told_apart_by_their_codes(code: str, text: str, kind: type) -> None:
    assert etcdctl._kind(LOGGED % (code, text, text))[0] is kind


def test_a_key_named_as_an_error_changes_nothing() -> None:
    stderr = "Error: permission denied: required revision has been compacted\n"
    assert etcdctl._kind(stderr)[0] is PermanentError
    assert etcdctl._kind("Error: context deadline exceeded\n")[0] is TransientError


def engine(source: dict[str, Any], target: dict[str, Any]) -> Etcd:
    member = {"host": "m", "address": "10.2.0.1", "data_dir": "/d"}
    member |= {"cert_file": "/c", "key_file": "/k"}
    return Etcd.model_validate(
        {
            "kind": "etcd",
            "source": {"host": "e", "endpoints": ["https://10.1.0.1:2379"], "bin_dir": "/b",
                       "ca_file": "/ca"} | source,
            "target": {"members": [member], "bin_dir": "/b", "ca_file": "/ca"} | target,
            "application": {"prefix": "/"},
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("source", "target", "asks"),
    [
        ({}, {}, False),
        ({"cert_file": "/x", "key_file": "/y"}, {}, True),
        ({"cert_file": "/x", "key_file": "/y"}, {"client_cert_auth": False}, False),
        ({}, {"client_cert_auth": True}, True),
    ],
)
def test_certificates_are_asked_for_as_at_the_source(
    source: dict[str, Any], target: dict[str, Any], asks: bool
) -> None:
    made = engine(source, target)
    assert made.target.client_cert_auth is asks
    written = configuration(made.target, made.target.members[0], "t", 2**32)
    security = written["client-transport-security"]
    assert isinstance(security, dict)
    assert bool(security.get("client-cert-auth")) is asks
    assert written["quota-backend-bytes"] == 2**33
    # A saved plan is the same again.
    again = Etcd.model_validate(json.loads(made.model_dump_json()))
    assert again.target.client_cert_auth is asks
    wants = replace(NOTHING, client_certificates=True)
    found = [item.id for item in compare.more_open(wants, made.target)]
    assert found == ([] if asks else ["service-more-open"])


def test_a_learner_keeps_nobody_from_a_backup(start: Callable[..., One], tmp_path: Path) -> None:
    """It answers what its status is, and little else."""
    voter, peer = start(), f"http://127.0.0.1:{free_port()}"
    leads = f"http://127.0.0.1:{voter.target.members[0].peer_port}"
    voter.root.text("member", "add", "n", "--learner", f"--peer-urls={peer}")
    learner = start(
        *("--name=n", f"--data-dir={tmp_path}/n", "--initial-cluster-state=existing"),
        *(f"--initial-cluster=m={leads},n={peer}", f"--listen-peer-urls={peer}"),
        f"--initial-advertise-peer-urls={peer}",
    )
    endpoints = [*learner.root.endpoints, *voter.root.endpoints]
    reached = {"bin_dir": "/usr/bin", "ca_file": voter.root.ca_file}
    domain: Any = SimpleNamespace(name="east", host=lambda _: voter.root.host)
    made = engine({**reached, "endpoints": endpoints}, {})
    assert made.living(domain).endpoints == voter.root.endpoints
    facts = made.survey(domain)
    assert sorted(member.name for member in facts.members) == ["m", "n"]
    alone = engine({**reached, "endpoints": endpoints[:1]}, {})
    with pytest.raises(TransientError, match="is a learner, or has no leader"):
        alone.living(domain)


def test_a_member_without_a_leader_keeps_nobody_from_a_backup(tmp_path: Path) -> None:
    (tmp_path / "etcdctl").write_text(
        '#!/bin/sh\ncase "$*" in *:1*) led= ;; *) led=\', "leader": 7\' ;; esac\n'
        'echo "[{\\"Endpoint\\": \\"x\\", \\"Status\\": {\\"raftTerm\\": 2$led}}]"\n'
    )
    (tmp_path / "etcdctl").chmod(0o755)
    host = LocalHost(name="here", work_dir=str(tmp_path / "work"))
    domain: Any = SimpleNamespace(name="east", host=lambda _: host)
    endpoints = ["https://10.1.0.1:1", "https://10.1.0.1:2"]
    made = engine({"bin_dir": str(tmp_path), "endpoints": endpoints}, {})
    assert made.living(domain).endpoints == ("https://10.1.0.1:2",)


@pytest.mark.parametrize("version", ["3.5.1\nrm -rf /", "$(x)", "", "3.5"])
def test_facts_of_no_etcd_are_refused(version: str) -> None:
    said = NOTHING.to_json()
    with pytest.raises(PermanentError, match="not etcd's"):
        engine({}, {}).read_facts({**said, "version": version})
    assert engine({}, {}).read_facts({**said, "version": "3.6.0-rc.1"}).version == "3.6.0-rc.1"


@pytest.mark.parametrize(
    "wrong",
    [
        {"bytes": "1"},
        {"bytes": True},
        {"members": [{"name": "kv1", "id": 1, "urls": []}]},
        {"members": [{"name": "kv1", "id": "1", "urls": []}]},
        {"members": [{"name": "kv1", "id": "1", "urls": ["https://10.1.0.1:nonsense"]}]},
        {"leases": {"1": "3600"}},
        {"snapshot": {"revision": 1}},
        {"snapshot": None},
    ],
)
def test_facts_of_another_type_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PermanentError, match="not etcd's"):
        engine({}, {}).read_facts({**NOTHING.to_json(), **wrong})


def test_what_an_older_set_does_not_say_is_not_known() -> None:
    said = NOTHING.to_json()
    assert set(said).isdisjoint({"since", "granted", "leases_at", "below_prefix"})
    read = engine({}, {}).read_facts({**said, "more": 1, "since": {}})
    assert read == replace(NOTHING, since=LastLook())
    assert read.to_json()["since"] == {}
    root: Any = None  # nothing needs to be asked
    assert status(integrity.leases(root, read)) is CheckStatus.UNKNOWN
