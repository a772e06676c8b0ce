"""What must hold before users of a restored etcd cluster may come."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from blocks.engines.checks import Answer, CheckSpec, judged
from blocks.engines.etcd.access import is_protected
from blocks.engines.etcd.alarms import SUBJECT
from blocks.engines.etcd.etcdctl import Etcdctl, LoginRefused, NoSpace, NotAllowed
from blocks.engines.etcd.facts import EtcdFacts
from blocks.engines.etcd.plan import Application, Member, TargetCluster
from blocks.errors import FarsideError, TransientError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.record import CheckStatus

SURVIVAL_SECONDS = 60.0
_ONE_LEADER = "one leader, known to all"


def membership(root: Etcdctl, target: TargetCluster) -> CheckSpec:
    """The members are those of the recovery inventory, at its addresses, and no other."""
    names = ", ".join(sorted(member.host for member in target.members))
    return CheckSpec(
        "membership",
        f"{names} at their own addresses",
        partial(_membership, root, target),
        finding=FindingId.PEER_LIST_STALE,
    )


def _membership(root: Etcdctl, target: TargetCluster) -> Answer:
    wanted = {m.host: ([m.peer_url], [m.client_url]) for m in target.members}
    found = {
        str(m.get("name", "")): (m.get("peerURLs", []), m.get("clientURLs", []))
        for m in root.json("member", "list")["members"]
    }
    wrong = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    wrong += [
        f"{name or 'an unnamed one'} is a member, at {', '.join(found[name][0])}"
        for name in found.keys() - wanted.keys()
    ]
    wrong += [
        f"{name} is at {', '.join((*found[name][0], *found[name][1]))}"
        for name in wanted.keys() & found.keys()
        if found[name] != wanted[name]
    ]
    return judged(sorted(wrong), f"{len(found)} members, as in the plan")


def identity(root: Etcdctl, facts: EtcdFacts) -> CheckSpec:
    """Cluster and members have other ids than the source's: neither can join the other."""
    return CheckSpec(
        "identity",
        "ids that the source did not have",
        partial(_identity, root, facts),
        finding=FindingId.NODE_IDENTITY_REUSED,
    )


def _identity(root: Etcdctl, facts: EtcdFacts) -> Answer:
    answer = root.json("member", "list")
    cluster = str(answer["header"]["cluster_id"])
    old = {member.id for member in facts.members}
    reused = [
        f"member {m['name']} has an id of the source"
        for m in answer["members"]
        if str(m["ID"]) in old
    ]
    if cluster == facts.cluster_id:
        reused.insert(0, "the cluster has the source's id")
    return judged(reused, f"cluster id {cluster}")


def leader(root: Etcdctl, target: TargetCluster) -> CheckSpec:
    """All members answer and know the same leader. What keeps them from writes: see `alarms`."""
    ask = partial(_leader, root, target)
    return CheckSpec("leader", _ONE_LEADER, ask, finding=FindingId.NODE_COUNT_DIFFERS)


def _leader(root: Etcdctl, target: TargetCluster) -> Answer:
    leaders, wrong = set[str](), list[str]()
    for endpoint, status in root.at(*target.endpoints).of_each(Etcdctl.status).items():
        if isinstance(status, FarsideError):
            wrong.append(f"{endpoint}: {status.message}")
            continue
        leaders.add(str(status.get("leader", 0)))
    if len(leaders) != 1 or leaders == {"0"}:
        wrong.append(f"{len(leaders - {'0'})} leaders")
    return judged(wrong, _ONE_LEADER)


def login(application: Etcdctl, app: Application, facts: EtcdFacts) -> CheckSpec:
    """The application's own user reads its keys, and is asked who it is where it has a password."""
    return CheckSpec(
        "login",
        f"{app.user or 'anybody'} reads below {app.prefix}",
        partial(_login, application, app, facts),
        finding=FindingId.LOGIN_MISSING,
    )


def _login(application: Etcdctl, app: Application, facts: EtcdFacts) -> Answer:
    """No key below its prefix is what the source had (then it is unknown), or a loss."""
    try:
        count = application.count("--prefix", "--", app.prefix)
        open_to_all = bool(app.password) and not is_protected(application)
    except LoginRefused as error:
        return judged([error.message], "")
    wrong, had = list[str](), facts.taken.below_prefix
    if open_to_all:
        who = app.user or "anybody"
        wrong.append(f"no client is asked for a password: {who} proved nothing with one")
    if not count and had:
        wrong.append(f"0 keys, where the source had {had}")
    if count or wrong:
        return judged(wrong, f"{count} keys")
    text = f"there is no key below {app.prefix}, at the source neither"
    if had is None and facts.below_prefix:
        text = f"0 keys, where the source had {facts.below_prefix} at its survey: lost, or deleted"
    return Answer(CheckStatus.UNKNOWN, text)


def quorum_write(
    application: Etcdctl, app: Application, target: TargetCluster, rehearsal_id: str
) -> CheckSpec:
    """A value committed through one member is read through another, then removed."""
    return CheckSpec(
        "committed-write",
        "a committed value is read through another member",
        partial(_quorum_write, application, app, target, rehearsal_id),
        finding=FindingId.USABLE_NOT_RESTORED,
    )


def _quorum_write(
    application: Etcdctl, app: Application, target: TargetCluster, rehearsal_id: str
) -> Answer:
    first, last = target.endpoints[0], target.endpoints[-1]
    key, wrong, subjects = f"{app.prefix}farside-{rehearsal_id}", list[str](), tuple[str, ...]()
    try:
        with _removed(application, key):
            application.at(first).put(key, rehearsal_id)
            found = [item.value.decode(errors="replace") for item in application.at(last).get(key)]
            application.at(first).text("del", key)
        if found != [rehearsal_id]:
            wrong.append(f"read {found}")
    except NotAllowed as error:
        wrong.append(error.message)
    except NoSpace as error:
        wrong.append(error.message)
        subjects = (SUBJECT.format("NOSPACE"),)
    return judged(wrong, f"read back {rehearsal_id}", subjects=subjects)


@contextmanager
def _removed(client: Etcdctl, key: str) -> Iterator[None]:
    """If what is inside breaks off, a key that it may have written goes: `key-space` would tell."""
    try:
        yield
    except FarsideError:
        with suppress(FarsideError):
            client.text("del", key)
        raise


# -- a member that dies -------------------------------------------------------------------------


def whole(root: Etcdctl, target: TargetCluster) -> None:
    """Raise TransientError unless all members of the plan answer, and there are no others.

    Of such a cluster one member may die; of another one too many may be dead already.
    """
    known = len(root.json("member", "list")["members"])
    if known != len(target.members):
        raise TransientError(
            f"it has {known} members",
            operation="failover",
            domain=root.host.domain,
            host=root.host.name,
        )
    for found in root.at(*target.endpoints).of_each(Etcdctl.status).values():
        if isinstance(found, FarsideError):
            raise found


def leading(root: Etcdctl, target: TargetCluster) -> Member:
    """The member that leads. Raises TransientError if none does."""
    for member in target.members:
        status = root.at(member.client_url).status()
        if status["leader"] == status["header"]["member_id"]:
            return member
    raise TransientError(
        "no member leads", operation="failover", domain=root.host.domain, host=root.host.name
    )


def survives(writing: Etcdctl, app: Application, rehearsal_id: str, dead: str) -> Answer:
    """With one member dead, the others have a leader again and take a write."""
    key, began, wrong = f"{app.prefix}farside-{rehearsal_id}", time.monotonic(), list[str]()
    while True:
        try:
            writing.put(key, rehearsal_id)
            found = [item.value.decode(errors="replace") for item in writing.get(key)]
            writing.text("del", key)
            if found != [rehearsal_id]:
                wrong.append(f"read {found}")
            break
        except TransientError as error:
            if time.monotonic() - began > SURVIVAL_SECONDS:
                wrong.append(error.message)
                break
            time.sleep(0.2)
    seconds = time.monotonic() - began
    return judged(wrong, f"a write was taken {seconds:.1f} s after the death of {dead}")
