"""Write what the code itself says: docs/reference/ and docs/schema/. Run `python -m docs.generate`.

A test compares the files with what this writes.
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from blocks.engines.registry import engines
from blocks.evidence.record import Record
from blocks.plan import values
from blocks.plan.model import Plan

DOCS = Path(__file__).parent
COMMAND = "python -m docs.generate"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

DURATION = {"type": "string", "pattern": r"^(?=\d)(\d+h)?\s*(\d+m)?\s*(\d+(\.\d+)?s)?$"}
RATE = {"type": ["string", "integer"], "pattern": r"^\d+(\.\d+)?\s*[kKMG]?(bit/s|bps|B/s)$"}
SIZE = {"type": ["string", "integer"], "pattern": r"^\d+(\.\d+)?\s*[kKMGT]?B$"}
WORDS = {
    DURATION["pattern"]: "duration: `90s`, `15m`, `1h30m`",
    RATE["pattern"]: "rate: `400Mbit/s`, `50MB/s`",
    SIZE["pattern"]: "size: `500GB`, `2TB`",
}
FORMATS = {
    "path": "path",
    "date": "day: `2027-03-31`",
    "date-time": "time, UTC",
    "ipv4network": "IPv4 network",
    "ipv6network": "IPv6 network",
}
"""How a value is written in a plan: these have units, which plain numbers would hide."""


class _AsWritten(GenerateJsonSchema):
    """The schema of a document as its author writes it, not of the objects that are made of it."""

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:  # noqa: ARG002 (pydantic's own)
        return dict(DURATION)

    def function_before_schema(
        self, schema: core_schema.BeforeValidatorFunctionSchema
    ) -> JsonSchemaValue:
        forms = {values.parse_rate: RATE, values.parse_size: SIZE}
        form = forms.get(schema["function"]["function"])
        return dict(form) if form else super().function_before_schema(schema)

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, timedelta):
            return f"{dft.total_seconds() / 60:g}m"
        return super().encode_default(dft)


def plan_schema() -> dict[str, Any]:
    """The JSON Schema of a plan file, with every engine."""
    of_plan = TypeAdapter(Plan).json_schema(schema_generator=_AsWritten)
    kinds: Any = Union[tuple(engines().values())]  # noqa: UP007 (which they are is known here)
    of_engine = TypeAdapter(Annotated[kinds, Field(discriminator="kind")])
    engine = of_engine.json_schema(schema_generator=_AsWritten)
    defs = {**of_plan.pop("$defs"), **engine.pop("$defs")}
    defs.pop("Engine", None)
    of_plan["properties"]["engine"] = {"description": "The database"} | engine
    return _schema("farside plan", of_plan | {"$defs": defs})


def record_schema() -> dict[str, Any]:
    """The JSON Schema of a record; what a newer farside adds is allowed."""
    found = TypeAdapter(Record).json_schema(mode="serialization")
    return _schema("farside record", found)


def _schema(title: str, found: Mapping[str, Any]) -> dict[str, Any]:
    cleaned = _without_prefect(found)
    return {"$schema": DIALECT, **cleaned, "title": title}


def _without_prefect(value: Any) -> Any:
    """A schema without what Prefect adds for its UI, and without titles made of field names."""
    if isinstance(value, list):
        return [_without_prefect(item) for item in value]
    if not isinstance(value, dict):
        return value
    drop = {"block_type_slug", "block_schema_references", "secret_fields", "position"}
    drop |= {"discriminator", "title"}
    found = {}
    for key, item in value.items():
        if key == "properties":
            found[key] = {name: _without_prefect(field) for name, field in item.items()}
        elif key == "$defs":
            found[key] = {name: _without_prefect(item[name]) for name in sorted(item)}
        elif key not in drop:
            found[key] = _without_prefect(item)
    return found


if __name__ == "__main__":
    s = plan_schema()
    print(json.dumps(s, indent=1))
