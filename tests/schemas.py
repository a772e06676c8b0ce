"""What an editor says of a document that names its schema."""

import json
from collections.abc import Mapping
from typing import Any

import jsonschema


def schema_errors(document: Any, schema: Mapping[str, Any]) -> list[str]:
    """Each mistake with its place, as the schema alone finds it."""
    checker = jsonschema.Draft202012Validator(schema)
    plain = json.loads(json.dumps(document, default=str))  # YAML makes days of texts
    return [f"{item.json_path}: {item.message}" for item in checker.iter_errors(plain)]
