"""What every host, store, vault and fence shares: it belongs to a failure domain and says so."""

from abc import ABC
from typing import Any, ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict, PrivateAttr, model_validator

from blocks.evidence.uses import UseKind, ledger

# Prefect writes these beside the fields of a block that it saves inside another one.
_PREFECT_KEYS = ("_block_document_id", "_block_document_name", "_is_anonymous")


class StrictBlock(Block):
    """A Prefect block that takes no key that it does not know."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def validate_block_type_slug(cls, values: Any) -> Any:
        """Take what Prefect adds to a saved block, which `extra="forbid"` would refuse."""
        if not isinstance(values, dict):
            return values
        slug = values.get("block_type_slug")
        if slug and slug != cls.get_block_type_slug():
            raise ValueError(f"this is a block of type {slug}, not {cls.get_block_type_slug()}")
        extra = ("block_type_slug", *_PREFECT_KEYS)
        return {key: value for key, value in values.items() if key not in extra}


class DomainPart(StrictBlock, ABC):
    """A block that is lost together with its failure domain."""

    _domain: str = PrivateAttr(default="")

    @property
    def domain(self) -> str:
        """The name of the failure domain; empty for what belongs to none."""
        return self._domain

    def join(self, domain: str) -> None:
        """Belong to `domain` from here on."""
        self._domain = domain

    def note(self, kind: UseKind, name: str) -> None:
        """Tell the ledger that `name` of this block's domain is used now."""
        ledger().note(kind, name, self._domain)
