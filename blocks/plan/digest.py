"""The digest by which a record names the plan that it rehearsed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

APART = frozenset({"description", "accepted", "schedule", "owner", "owners", "retention"})
"""What a plan says besides how it is recovered: a change of it leaves evidence as good as it is."""


def digest_of(plan: BaseModel) -> str:
    """SHA-256 of what the plan sets: no default, no order of keys, nothing that is `APART`.

    A new optional field of a later farside leaves it as it is.
    """
    said = {name: value for name, value in _set(plan).items() if name not in APART}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _set(model: BaseModel) -> dict[str, Any]:
    """The fields that are not as by default. `kind` tells classes apart, so it always counts."""
    return {
        name: _plain(value)
        for name, field in type(model).model_fields.items()
        if (value := getattr(model, name)) != field.get_default(call_default_factory=True)
        or name == "kind"
    }


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _set(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return to_jsonable_python(value)
