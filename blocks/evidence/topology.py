"""Which node of the recovery takes the place of which node of the source."""

from collections.abc import Mapping, Sequence

from blocks.evidence.record import Counterpart, Node, SourceNode


def counterparts(
    source: Sequence[SourceNode], recovery: Sequence[Node], given: Mapping[str, str]
) -> tuple[Counterpart, ...]:
    """Each node of the source with its recovery host, then the recovery nodes without an origin.

    What is `given` (name of a source node -> recovery host) is all of the mapping. Without it, it
    is derived: a node is replaced by one of the same role, that of the same name before others, the
    others in the order in which both sides list them.
    """
    mapping = given or _derived(source, recovery)
    placed = [Counterpart(node.name, mapping.get(node.name)) for node in source]
    taken = set(mapping.values())
    return (*placed, *(Counterpart(None, node.host) for node in recovery if node.host not in taken))


def _derived(source: Sequence[SourceNode], recovery: Sequence[Node]) -> Mapping[str, str]:
    free = list(recovery)
    found = {}
    for same_name in (True, False):
        for node in source:
            if node.name in found:
                continue
            for other in free:
                if other.role == node.role and (other.host == node.name or not same_name):
                    found[node.name] = other.host
                    free.remove(other)
                    break
    return found
