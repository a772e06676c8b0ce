"""MariaDB Galera (tested: 10.11): a physical backup, restored as a cluster of any number of nodes.

The backup is what `mariadb-backup` streams from a node that is Synced, with its place in the
cluster's history. Each restored node is made from it by itself, side by side with the others, and
is given the same place in the history of a new cluster, so that they find each other and need no
copy from a donor. There is no log besides: what was committed after the backup is lost, which is
what the recovery point says.
"""

from blocks.engines.galera.engine import Galera

__all__ = ["Galera"]
