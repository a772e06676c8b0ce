"""Write what the code itself says: docs/reference/ and docs/schema/. Run `python -m docs.generate`.

A test compares the files with what this writes.
"""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from blocks.engines.registry import catalogue, engines
from blocks.evidence.catalogue import Assumption, Category, Severity
from blocks.evidence.record import CheckStatus, Record, StageState, Verdict
from blocks.evidence.stages import StageName
from blocks.evidence.verdict import ExitCode
from blocks.plan.model import Plan
from deployments.lab.drills import BOARDS

DOCS = Path(__file__).parent
COMMAND = "python -m docs.generate"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = Mapping[str, Any]

FORMATS = {
    "path": "path",
    "date": "day: `2027-03-31`",
    "date-time": "time, UTC",
    "ipv4network": "IPv4 network",
    "ipv6network": "IPv6 network",
}
FROM_PREFECT = {"block_type_slug", "block_schema_references", "secret_fields", "position"}
"""Keys of a schema that are for Prefect's UI alone."""


class _AsWritten(GenerateJsonSchema):
    """With defaults as a plan writes them."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, timedelta):
            return f"{dft.total_seconds() / 60:g}m"
        return super().encode_default(dft)


@cache
def plan_schema() -> Schema:
    """The JSON Schema of a plan file, with every engine."""
    of_plan = TypeAdapter(Plan).json_schema(schema_generator=_AsWritten)
    known = [engine for _, engine in sorted(engines().items())]
    kinds: Any = Union[tuple(known)]  # noqa: UP007 (which they are is known here)
    engine = TypeAdapter(Annotated[kinds, Field(discriminator="kind")])
    of_engine = engine.json_schema(schema_generator=_AsWritten)
    parts = {**of_plan.pop("$defs"), **of_engine.pop("$defs")}
    parts.pop("Engine", None)
    of_plan["properties"]["engine"] = {**of_engine, "description": "The database"}
    return _document("farside plan", {**of_plan, "$defs": parts})


@cache
def record_schema() -> Schema:
    """The JSON Schema of a record; what a newer farside adds is allowed."""
    return _document("farside record", TypeAdapter(Record).json_schema(mode="serialization"))


def _document(title: str, found: Schema) -> Schema:
    text = json.dumps({"$schema": DIALECT, **_cleaned(found), "title": title})
    # Two engines may give one name to parts of theirs: then pydantic puts the module in front.
    text = re.sub(r"blocks__engines__([a-z]+)__\w+?__([A-Z]\w+)", _of_engine, text)
    document: dict[str, Any] = json.loads(text)
    for part in list(_told_apart(document)):
        required = document["$defs"][part].setdefault("required", [])
        document["$defs"][part]["required"] = sorted({*required, "kind"})
    return document


def _of_engine(match: re.Match[str]) -> str:
    return f"{match[1].capitalize()}{match[2]}"


def _cleaned(value: Any, *, names: bool = False) -> Any:
    """A schema without what Prefect adds, and without titles, which are made of field names.

    With `names`, the keys are names of fields and parts: all are kept.
    """
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if not isinstance(value, dict):
        return " ".join(value.split()) if isinstance(value, str) else value
    drop = set() if names else {*FROM_PREFECT, "discriminator", "title"}
    return {
        key: _cleaned(item, names=key in ("properties", "$defs"))
        for key, item in value.items()
        if key not in drop
    }


def _told_apart(value: Any) -> Iterator[str]:
    """Parts that their `kind` tells apart."""
    if isinstance(value, dict):
        for item in value.get("oneOf", ()):
            yield item["$ref"].rpartition("/")[2]
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            yield from _told_apart(item)


def plan_reference() -> str:
    """Every field of a plan."""
    lead = """
        # Plan: every field

        [../plan.md](../plan.md) has a whole plan, and says how an editor uses
        [the schema](../schema/plan.schema.json). Values carry their unit: a duration as `90s`,
        `15m` or `1h30m`, a rate as `400Mbit/s` or `50MB/s`, a size as `500GB` or `2TB`.
        """
    taken = [
        f"| `{label}` | {', '.join(sorted(engine.takes))} |"
        for label, engine in sorted(engines().items())
    ]
    restores = [
        "## What engines restore from",
        "",
        "| engine | material |",
        "| --- | --- |",
        *taken,
    ]
    return _page(lead, *_sections("Plan", plan_schema()), "\n".join(restores))


def record_reference() -> str:
    """Every field of a record, the stages, and how things end."""
    lead = """
        # Record: every field

        [../record.md](../record.md) says what a record is for;
        [record.schema.json](../schema/record.schema.json) is its JSON Schema. Times are UTC,
        ISO 8601. What is not known is null, never zero. A newer farside may add fields.
        """
    return _page(
        lead,
        *_sections("Record", record_schema()),
        _listed("Stages", StageName),
        _listed("Verdicts", Verdict),
        _listed("States of a stage", StageState),
        _listed("Statuses of a check", CheckStatus),
        _listed("Exit codes", ExitCode),
    )


def findings_reference() -> str:
    """Every assumption of the catalogue."""
    lead = """
        # Findings: the catalogue

        [../findings.md](../findings.md) says what a finding is. Its id is what a plan accepts, and
        what `python -m flows.drill` breaks.
        """
    known = catalogue().values()
    groups = []
    for category in Category:
        rows = [row for row in known if row.category is category]
        groups += [f"## {category.value}", *(_entry(row) for row in rows)]
    return _page(lead, _listed("Severities", Severity), *groups)


def _entry(row: Assumption) -> str:
    drills = [board.drills[row.id].what for board in BOARDS.values() if row.id in board.drills]
    lines = [
        f"### {row.id}",
        "",
        f"**{row.severity.value}**: {row.title}.",
        "",
        *(f"- For example: {' '.join(what.split())}." for what in dict.fromkeys(drills)),
        f"- Remedy: {row.remedy}",
    ]
    if row.stops:
        lines.append("- Met in preflight, it ends the rehearsal there.")
    if row.isolation:
        lines.append("- A plan accepts it of a named subject only.")
    return "\n".join(lines)


def _sections(name: str, document: Schema) -> Iterator[str]:
    """A section for the document, then for each of its parts as they are met."""
    parts: dict[str, Schema] = {name: document}
    places: dict[str, list[str]] = {name: []}
    for part in _met(name, document, places):
        parts.setdefault(part, document["$defs"][part])
    for part, schema in parts.items():
        if "enum" in schema:
            continue
        lines = [f"## {part}", "", _text(schema), ""]
        if used := list(dict.fromkeys(places[part])):
            lines += [f"In {', '.join(used)}.", ""]
        lines += ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
        required = schema.get("required", ()) if name == "Plan" else ()
        for field, item in schema["properties"].items():
            default = "**required**" if field in required else _default(item)
            cells = (
                f"`{field}`",
                _type(item, document),
                default,
                _text(item) or _of_part(item, document) or "—",
            )
            lines.append(f"| {' | '.join(map(_cell, cells))} |")
        yield "\n".join(lines)


def _met(name: str, document: Schema, places: dict[str, list[str]]) -> Iterator[str]:
    """Parts in the order in which fields lead to them; notes the places."""
    waiting = [name]
    while waiting:
        part = waiting.pop(0)
        yield from () if part == name else (part,)
        schema = document if part == name else document["$defs"][part]
        for field, item in schema.get("properties", {}).items():
            for found in _references(item):
                if found not in places:
                    waiting.append(found)
                places.setdefault(found, []).append(f"{part} `{field}`")


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"].rpartition("/")[2]
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from _references(item)


def _type(item: Schema, document: Schema) -> str:
    """The type of a value in words, with a link where it has a section."""
    for key in ("anyOf", "oneOf"):
        if key in item:
            kinds = [one for one in item[key] if one.get("type") != "null"]
            written = [one for one in kinds if "examples" in one]  # a number lacks its unit
            return " or ".join(_type(one, document) for one in written or kinds)
    if "$ref" in item:
        name = item["$ref"].rpartition("/")[2]
        part = document["$defs"][name]
        return _type(part, document) if "enum" in part else f"[{name}](#{name.lower()})"
    if "const" in item or "enum" in item:
        return ", ".join(f"`{value}`" for value in item.get("enum", [item.get("const")]))
    if "examples" in item:
        return f"text, as in `{item['examples'][0]}`"
    if words := FORMATS.get(item.get("format", "")):
        return words
    kind = item.get("type")
    if kind == "array":
        several = item.get("items") or {"anyOf": item.get("prefixItems", [])[:1]}
        return f"list of {_type(several, document)}"
    if kind == "object":
        more = item.get("additionalProperties")
        return f"mapping to {_type(more, document)}" if isinstance(more, dict) else "mapping"
    words = {"string": "text", "boolean": "`true` or `false`"}.get(str(kind), str(kind))
    limits = [f"from {item['minimum']}" if "minimum" in item else ""]
    limits += [f"to {item['maximum']}" if "maximum" in item else ""]
    return " ".join(filter(None, (words, *limits)))


def _default(item: Schema) -> str:
    value = item.get("default")
    if value is None or value in ("", [], {}):
        return ""
    (example,) = next((one["examples"] for one in item.get("anyOf", ()) if "examples" in one), [""])
    if isinstance(value, int) and example:
        value = f"{value / 10**6:g}MB/s" if "/s" in example else f"{value / 10**9:g}GB"
    if isinstance(value, dict):
        return ""  # its part's section has the defaults
    if isinstance(value, float):
        value = f"{value:g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`"


def _text(item: Schema) -> str:
    return str(item.get("description", ""))


def _of_part(item: Schema, document: Schema) -> str:
    """What a field's part says of itself, where the field says nothing."""
    parts = [] if item.get("type") == "array" else list(_references(item))
    return _text(document["$defs"][parts[0]]) if len(parts) == 1 else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _listed(title: str, members: type[Enum]) -> str:
    rows = [f"| `{item.value}` | {meaning} |" for item, meaning in _meanings(members)]
    return "\n".join([f"## {title}", "", "| value | meaning |", "| --- | --- |", *rows])


def _meanings(members: type[Enum]) -> Iterator[tuple[Enum, str]]:
    """Each member with the text under it."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(members))).body
    assert isinstance(tree, ast.ClassDef)
    below = dict(zip(tree.body, tree.body[1:], strict=False))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            text = below.get(node)
            said = text.value if isinstance(text, ast.Expr) else None
            meaning = said.value if isinstance(said, ast.Constant) else ""
            yield members[node.targets[0].id], " ".join(str(meaning).split())


def _page(lead: str, *sections: str) -> str:
    notice = f"<!-- Generated by `{COMMAND}`: change the code, not this file. -->"
    return "\n\n".join([notice, textwrap.dedent(lead).strip(), *sections]) + "\n"


def _json(document: Schema) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def files() -> dict[Path, str]:
    """Every generated file, and what it is to hold."""
    return {
        DOCS / "reference" / "plan.md": plan_reference(),
        DOCS / "reference" / "findings.md": findings_reference(),
        DOCS / "reference" / "record.md": record_reference(),
        DOCS / "schema" / "plan.schema.json": _json(plan_schema()),
        DOCS / "schema" / "record.schema.json": _json(record_schema()),
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
