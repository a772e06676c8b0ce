"""Shapes: what went where, and what is not as it was to be."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from blocks.evidence.record import Counterpart, Difference, Node, SourceNode, Topology
from blocks.evidence.topology import counterparts

NAMES = st.lists(st.sampled_from(["db1", "db2", "db3", "db4", "etcd"]), unique=True)
ROLES = st.sampled_from(["primary", "standby"])

Sides = tuple[list[SourceNode], list[Node]]


@st.composite
def shapes(draw: st.DrawFn) -> Sides:
    """A source and a recovery of any shape."""
    source = [SourceNode(name, draw(ROLES)) for name in draw(NAMES)]
    return source, [Node(name, draw(ROLES), "10.2.0.1", 5432) for name in draw(NAMES)]


@given(shapes())
def test_every_node_is_in_a_derived_mapping_once(
    shape: tuple[list[SourceNode], list[Node]],
) -> None:
    source, recovery = shape
    found = counterparts(source, recovery, {})
    assert [pair.source for pair in found if pair.source] == [node.name for node in source]
    assert sorted(pair.recovery for pair in found if pair.recovery) == sorted(
        node.host for node in recovery
    )
    was = {node.name: node.role for node in source}
    becomes = {node.host: node.role for node in recovery}
    for pair in found:
        assert pair.source or pair.recovery
        if pair.source and pair.recovery:
            assert was[pair.source] == becomes[pair.recovery]
            assert pair.source == pair.recovery or becomes.get(pair.source) != was[pair.source]
    # Nobody is left alone who could have been paired.
    alone = {was[pair.source] for pair in found if pair.source and not pair.recovery}
    assert not alone & {
        becomes[pair.recovery] for pair in found if pair.recovery and not pair.source
    }


@given(shapes(), st.data())
def test_a_given_mapping_is_all_of_it(shape: Sides, data: st.DataObject) -> None:
    source, recovery = shape
    order = data.draw(st.permutations([node.host for node in recovery]))
    mapping = dict(zip([node.name for node in source], order, strict=False))
    found = counterparts(source, recovery, mapping)
    assert {p.source: p.recovery for p in found if p.source and p.recovery} == mapping
    assert len(found) == max(len(source), len(recovery))


PRIMARY, STANDBY = SourceNode("a", "primary"), SourceNode("b", "standby")


def test_fewer_and_more_nodes_than_the_source() -> None:
    one = [Node("db1", "primary", "10.2.0.1", 5432)]
    three = [*one, *(Node(name, "standby", "10.2.0.2", 5432) for name in ("b", "c"))]
    assert counterparts([PRIMARY, STANDBY], one, {}) == (
        Counterpart("a", "db1"),
        Counterpart("b", None),
    )
    assert counterparts([PRIMARY, STANDBY], three, {}) == (
        Counterpart("a", "db1"),
        Counterpart("b", "b"),
        Counterpart(None, "c"),
    )


def difference(predicted: Mapping[str, str], observed: Mapping[str, str]) -> object:
    """Of hosts with their addresses."""
    before, after = (
        tuple(Node(host, "member", address, 2379) for host, address in side.items())
        for side in (predicted, observed)
    )
    return Topology(before, after).difference


def test_a_difference_is_a_node_that_is_missing_more_or_elsewhere() -> None:
    a, b = Node("a", "member", "10.2.0.1", 2379), Node("b", "member", "10.2.0.2", 2379)
    assert difference({"a": "10.2.0.1"}, {"a": "10.2.0.1"}) == ()
    assert difference({"a": "10.2.0.1"}, {"b": "10.2.0.2"}) == (
        Difference("a", a, None),
        Difference("b", None, b),
    )
    moved = difference({"a": "10.2.0.1"}, {"a": "10.2.0.9"})
    assert moved == (Difference("a", a, replace(a, address="10.2.0.9")),)
    assert moved[0].moved
    assert Topology((a,), None).difference is None
