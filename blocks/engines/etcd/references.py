"""The keys and values of a restored cluster, searched for what belongs to the source."""

from blocks.engines.common.capping import capped
from blocks.engines.etcd.etcdctl import Etcdctl
from blocks.engines.restored import References
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import finding
from blocks.ownership import Belongings
from blocks.remote import resolving

_IDS = {"path": FindingId.PATH_HARD_CODED, "address": FindingId.ADDRESS_HARD_CODED}


def search(
    root: Etcdctl, rehearsal_id: str, foreign: Belongings, largest: int | None
) -> References:
    """What names something `foreign`; for in etcd keys and values are the configuration.

    `largest` is the snapshot's, for Etcdctl.read. Raises as that.
    """
    found = root.read(rehearsal_id, 0, foreign, largest=largest)
    named = [
        finding(
            _IDS["path" if item.text in foreign.paths else "address"],
            f"key {item.path}" + (f", line {item.line}" if item.line > 1 else ""),
            f"it names {item.text}",
        )
        for item in found.mentions
    ]
    unseen = list[str]()
    if found.more_hosts:
        unseen.append(f"where names lead beyond the first {len(found.hosts)} in its keys")
    named += resolving.leading_to(root.host, rehearsal_id, found.hosts, foreign, unseen)
    more: dict[str, int] = {_IDS[kind]: count for kind, count in found.more.items()}
    return References(tuple(capped(named, more)), tuple(unseen))
