"""etcd 3.4 and later: a snapshot, restored into as many members as the recovery domain has.

A snapshot holds keys, users, roles and leases, but no members: the restored cluster is a new one,
with other ids, so that neither can join the other. There is no log besides: what was committed
after the snapshot is lost, which is what the recovery point says.
"""

from blocks.engines.etcd.engine import Etcd

__all__ = ["Etcd"]
"""The engine of etcd."""
