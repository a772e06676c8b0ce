"""The shape that came up against the one that the plan has."""

from dataclasses import replace

from blocks.evidence.record import Node, SourceNode, Topology
from blocks.evidence.topology import counterparts
from tasks.restore import misshapen

PRIMARY = Node("db1", "primary", "10.2.0.1", 5432)
STANDBY = Node("db2", "standby", "10.2.0.2", 5432)


def found(*observed: Node) -> list[tuple[str, str, str]]:
    items = misshapen(Topology((PRIMARY, STANDBY), observed))
    return [(item.id, item.subject, item.evidence) for item in items]


def test_a_standby_that_is_missing_more_or_elsewhere() -> None:
    assert found(PRIMARY, STANDBY) == []
    assert found(PRIMARY) == [
        ("node-count-differs", "db2", "standby at 10.2.0.2:5432 is not there")
    ]
    third = replace(STANDBY, host="db3")
    assert found(PRIMARY, STANDBY, third) == [
        ("node-count-differs", "db3", "standby at 10.2.0.2:5432 is there, and not in the plan")
    ]
    text = "the plan has a standby at 10.2.0.2:5432; there is a primary at 10.2.0.2:5432"
    assert found(PRIMARY, replace(STANDBY, role="primary")) == [("placement-dropped", "db2", text)]


def test_fewer_replicas_than_the_source_are_no_finding_where_the_plan_has_fewer() -> None:
    source = (SourceNode("db1", "primary"), SourceNode("db2", "standby"))
    mapping = counterparts(source, [PRIMARY], {})
    assert mapping[1].recovery is None
    assert list(misshapen(Topology((PRIMARY,), (PRIMARY,), source, mapping))) == []
