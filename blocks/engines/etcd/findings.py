"""Assumptions that only etcd can break."""

from enum import StrEnum

from blocks.evidence.catalogue import Assumption, Category, Severity, register


class EtcdFinding(StrEnum):
    """Ids of the findings that only etcd has."""

    REVISION_REUSED = "revision-reused"


register(
    Assumption(
        EtcdFinding.REVISION_REUSED,
        Category.TOPOLOGY,
        Severity.MEDIUM,
        "clients that watch or cache do not notice that the restored cluster is another one",
        "Restart every client that watches or caches once the cluster is restored, or have an "
        "etcd on every recovery host that can raise the revision: 3.5.10 and later can.",
    ),
)
