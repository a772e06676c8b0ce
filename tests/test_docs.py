"""What the docs say of the code is what the code says: references and schemas are current."""

import copy
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import finding
from blocks.evidence.record import PlanSummary, Record, Stage, StageState, Verdict
from blocks.evidence.stages import StageName
from docs import generate
from tests.schemas import schema_errors

ROOT = Path(__file__).parents[1]
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def example() -> Any:
    """The plan that docs/plan.md shows."""
    text = (ROOT / "docs" / "plan.md").read_text()
    (plan,) = re.findall(r"```yaml\n(.*?\nsource:.*?)```", text, re.DOTALL)
    return yaml.safe_load(plan)


def test_what_is_generated_is_current() -> None:
    old = [
        str(path.relative_to(ROOT))
        for path, text in generate.files().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert not old, f"{', '.join(old)}: not current; run `{generate.COMMAND}`"


def test_the_example_satisfies_the_schema() -> None:
    schema = generate.plan_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema_errors(example(), schema) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("objective",), {}),
        (("objectives", "rtt"), "1m"),
        (("objectives", "rto"), "soon"),
        (("transfer", "rate"), "fast"),
        (("source", "hosts", 0, "adress"), "10.0.0.1"),
        (("source", "hosts", 0, "kind"), "telnet"),
        (("engine", "target", "data_dirs"), "/srv"),
        (("engine", "kind"), "oracle"),
        (("fence", "fences", 0, "raise"), ["/bin/true"]),
        (("checks", 0, "name"), "Two Words"),
        (("production", "size"), "big"),
    ],
    ids=str,
)
def test_a_typo_is_refused(place: tuple[str | int, ...], value: object) -> None:
    document = copy.deepcopy(example())
    part = document
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    assert schema_errors(document, generate.plan_schema())


def test_a_record_satisfies_its_schema_and_a_wrong_one_does_not() -> None:
    schema = generate.record_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    record = Record(
        rehearsal_id="r1",
        plan=PlanSummary("shop", "ab" * 32, "postgres", "east", "west"),
        verdict=Verdict.FAILED,
        started_at=NOON,
        ended_at=None,
        stages=tuple(Stage(name, StageState.SKIPPED) for name in StageName),
        findings=(finding(FindingId.KEY_STALE, "key", "it is another one", StageName.KEY_FETCH),),
    )
    document = json.loads(record.to_json())
    assert schema_errors(document, schema) == []
    assert document["findings"][0]["id"] == "key-stale"
    assert [stage["name"] for stage in document["stages"]] == [*map(str, StageName)]
    assert schema_errors(document | {"verdict": "splendid"}, schema)


def test_every_field_of_a_record_is_described() -> None:
    assert "| — |" not in generate.record_reference()
