"""The restored nodes, as checks ask them."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from blocks.engines.galera.facts import TableName
from blocks.engines.galera.mariadb import Mariadb
from blocks.errors import TransientError

HOURS = 24 * 3600.0
_AT_ONCE = 100
Nodes = Mapping[str, Mariadb]
"""The restored nodes by host, each asked by its own socket."""


def number(nodes: Nodes) -> str:
    """How many nodes there are, for people."""
    return "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"


def of_each(nodes: Nodes, wrong_with: Callable[[Mariadb], Iterable[str]]) -> list[str]:
    """What is wrong with each node.

    One that does not answer is the finding of `synced`; here its error is raised if nothing else
    is wrong, for then it is unknown.
    """
    wrong, silent = list[str](), list[TransientError]()
    for host, node in nodes.items():
        try:
            wrong += [f"{host}: {text}" for text in wrong_with(node)]
        except TransientError as error:
            silent.append(error)
    if silent and not wrong:
        raise silent[0]
    return wrong


def batches(tables: Sequence[TableName]) -> Iterable[Sequence[TableName]]:
    """Some tables, as many at once as one statement names."""
    return (tables[start : start + _AT_ONCE] for start in range(0, len(tables), _AT_ONCE))
