"""What proves the data of a restored etcd cluster: keys, revision, accounts and leases."""

import time
from dataclasses import dataclass
from functools import partial

from blocks.engines.checks import Answer, CheckSpec, judged, passed, unknown
from blocks.engines.common.tally import Tally
from blocks.engines.etcd import last_look
from blocks.engines.etcd.etcdctl import Compacted, Etcdctl
from blocks.engines.etcd.facts import EtcdFacts, Snapshot
from blocks.engines.etcd.findings import EtcdFinding
from blocks.engines.etcd.plan import TargetCluster
from blocks.engines.etcd.restore import RAISED_BY
from blocks.errors import FarsideError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.record import CheckStatus


def revision(root: Etcdctl, kept: Snapshot) -> CheckSpec:
    """The revision was raised, and what lies between is compacted.

    Who watches or caches cannot go on where the lost cluster was: etcd tells it to start again.
    """
    return CheckSpec(
        "revision",
        "a revision that the source never reached, and all before it compacted",
        partial(_revision, root, kept.revision),
        finding=EtcdFinding.REVISION_REUSED,
    )


def _revision(root: Etcdctl, at: int) -> Answer:
    now, wrong = _now(root), list[str]()
    if now < at + RAISED_BY:
        wrong.append(f"it is at {now}, and was at {at} in the snapshot")
    try:
        root.get("/", f"--rev={max(at, 1)}")
        wrong.append(f"revision {at} can still be read")
    except Compacted:
        pass
    return judged(wrong, f"{now:,}; revision {at:,} is compacted")


def _now(root: Etcdctl) -> int:
    """The cluster's revision."""
    return int(root.json("get", "/", "--limit=1", "--keys-only")["header"]["revision"])


def key_space(root: Etcdctl, target: TargetCluster, kept: Snapshot, rehearsal_id: str) -> CheckSpec:
    """Every key is the snapshot's, with its value and numbers, and the same on each member."""
    expected = "the source's keys"
    if kept.digest:
        all_keys = f"SHA-256 {kept.digest} of all keys at revision {kept.newest}"
        expected = f"one hash on all members, {all_keys}"
    return CheckSpec(
        "key-space",
        expected,
        partial(_key_space, root, target, kept, rehearsal_id),
        finding=FindingId.INCOMPLETE_RESTORE,
        grows=True,
    )


def _key_space(root: Etcdctl, target: TargetCluster, kept: Snapshot, rehearsal_id: str) -> Answer:
    """Compared are the keys that are served now; if they differ, first those that were restored.

    Those are at the snapshot's revision, raised or not. Leases may have ended some since, nothing
    else may have changed any. Without a digest in the manifest nothing is comparable: the result
    is unknown. The snapshot itself is held against what the source counted at its revision.
    """
    now = _now(root)
    served = kept.revision + RAISED_BY if now >= kept.revision + RAISED_BY else kept.newest
    members = root.at(*target.endpoints)
    hashes, silent = _hashes(members, served)
    if now != served and any(isinstance(error, Compacted) for error in silent):
        # Some versions have no hash of the compacted revision once another follows it: see `hash`.
        hashes, silent = _hashes(members, now)
    wrong = [
        f"{endpoint} has hash {has}"
        for endpoint, has in hashes.items()
        if len(set(hashes.values())) > 1
    ]
    if None not in (kept.at_source, kept.live) and kept.at_source != kept.live:
        counted = f"the source {kept.at_source} at its revision {kept.newest}"
        wrong.append(f"the snapshot has {kept.live} keys, {counted}")
    right = f"the same on {len(target.endpoints)} members"
    if kept.digest:
        read = live = root.read(rehearsal_id, 0, largest=kept.largest)
        if live.digest != kept.digest and now != served:
            read = root.read(rehearsal_id, served, largest=kept.largest)
        if read.digest != kept.digest:
            count = "" if kept.live is None else f" instead of {kept.live}"
            wrong.append(f"{read.keys} keys{count}, SHA-256 {read.digest}")
        elif live.digest != kept.digest and kept.lasting not in (None, "", live.lasting):
            # An older set does not say how to tell what leases have ended.
            wrong.append(f"keys were changed or deleted since revision {served}")
        right = f"{read.keys:,} keys, {right}"
    if wrong:
        return judged(wrong, right)
    if silent:
        raise silent[0]
    if not kept.digest:
        text = f"not compared with the source: the set has no digest of its keys; {right}"
        return Answer(CheckStatus.UNKNOWN, text)
    return passed(right)


def _hashes(members: Etcdctl, served: int) -> tuple[dict[str, str], list[FarsideError]]:
    """Each member's hash of all keys at a revision; why others did not tell one."""
    hashes, silent = dict[str, str](), list[FarsideError]()
    for endpoint, found in members.of_each(lambda member: member.hash(served)).items():
        if isinstance(found, FarsideError):
            silent.append(found)
        else:
            hashes[endpoint] = found[0]
    return hashes, silent


@dataclass(frozen=True, slots=True)
class Accounts:
    """Users and roles, and digests of what each is granted."""

    users: tuple[str, ...]
    roles: tuple[str, ...]
    granted: dict[str, str]


def logins(root: Etcdctl, facts: EtcdFacts) -> CheckSpec:
    """Every user and role of the manifest is there, but for those that the source dropped.

    They are granted what they were, on each member.
    """
    ask = partial(_logins, root, facts)
    return CheckSpec(
        "logins", "the manifest's users and roles", ask, finding=FindingId.LOGIN_MISSING
    )


def _logins(root: Etcdctl, facts: EtcdFacts) -> Answer:
    """Members that answer alike are compared once."""
    tally, each = Tally(), list[Accounts]()
    for endpoint, found in root.of_each(_accounts).items():
        with tally.looking(endpoint):
            if isinstance(found, FarsideError):
                raise found
            tally.seen += 1
            if found not in each:
                each.append(found)
    for accounts in each:
        _compare(tally, accounts, facts)
    return tally.answer(f"{len(facts.users)} users, {len(facts.roles)} roles")


def _accounts(member: Etcdctl) -> Accounts:
    return Accounts(last_look.users(member), last_look.roles(member), last_look.granted(member))


def _compare(tally: Tally, found: Accounts, facts: EtcdFacts) -> None:
    last = facts.last
    for kind, names, there, had in (
        ("user", facts.users, found.users, last.had_user),
        ("role", facts.roles, found.roles, last.had_role),
    ):
        for name in names:
            label = f"{kind} {name}"
            tally.compare(label, f"{label} is missing", name in there, True, had(name))
    for label, digest in (facts.granted or {}).items():
        kind, _, name = label.partition(" ")
        if label in found.granted:
            text = f"{label} is granted something else"
            tally.compare(label, text, found.granted[label], digest, last.grant_of(label))
        elif name in (found.users if kind == "user" else found.roles):
            tally.unseen.append(f"what {label} is granted")


def leases(root: Etcdctl, facts: EtcdFacts) -> CheckSpec:
    """The manifest's leases; those that were to end before now may have."""
    ask = partial(_leases, root, facts)
    return CheckSpec("leases", "the manifest's leases", ask, finding=FindingId.INCOMPLETE_RESTORE)


def _leases(root: Etcdctl, facts: EtcdFacts) -> Answer:
    if facts.leases_at is None:
        return unknown("the set does not say when its leases were looked at")
    found = {str(item["id"]) for item in root.json("lease", "list").get("leases", ())}
    age = time.time() - facts.leases_at
    missing = [
        f"lease {int(lease_id):x} is missing"
        for lease_id, ttl in facts.leases.items()
        if lease_id not in found and ttl > age
    ]
    return judged(missing, f"{len(found)} leases")
