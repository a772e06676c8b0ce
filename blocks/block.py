"""What every host, store, vault and fence shares: it belongs to a failure domain and says so."""

import re
import socket
from abc import ABC
from copy import deepcopy
from functools import cache
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from prefect.blocks.core import Block, schema_extra
from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, model_validator

from blocks.evidence.uses import UseKind, ledger

# Prefect writes these next to the fields of a block that it saves inside another one.
_PREFECT_KEYS = ("_block_document_id", "_block_document_name", "_is_anonymous")
_NAME = re.compile(r"\w([\w-]*\w)?(\.\w([\w-]*\w)?)*\.?", re.ASCII)
_NUMBER = re.compile(r"[\d.]+", re.ASCII)


def bare_address(text: str) -> str:
    """An IP address or a DNS name, and nothing around it. Raises ValueError."""
    if not is_ip(text) and (_NUMBER.fullmatch(text) or not _NAME.fullmatch(text)):
        raise ValueError(
            f"{text!r} is no IP address and no DNS name; write it without brackets, port and path"
        )
    if is_ip(text) and (ip_address(text).is_unspecified or ip_address(text).is_multicast):
        raise ValueError(f"{text!r} is no machine's address; name the one that it has")
    return text


Address = Annotated[str, AfterValidator(bare_address)]
"""Where a plan says that something is: an IP address or a DNS name; its port has a field too."""


Port = Annotated[int, Field(ge=1, le=65535)]
"""A TCP port."""


def absolute_path(text: str) -> str:
    """A directory or file on a host, by one spelling. Raises ValueError.

    A sweep compares paths: what is relative, or goes up again, is another path than it says.
    """
    if not text.startswith("/") or not text.strip("/"):
        raise ValueError(f"{text!r} is no absolute path below /")
    if ".." in text.split("/"):
        raise ValueError(f"{text!r} goes up again: write it without ..")
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError(f"{text!r} holds a control character")
    return text


Directory = Annotated[str, AfterValidator(absolute_path)]
"""Where a plan says that something is on a host."""


def url_port(url: str) -> int | None:
    """A URL's port, if it gives one. Raises ValueError for one that there cannot be."""
    try:
        port = urlsplit(url).port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(f"{url!r}: a port is a number from 1 to 65535")
    return port


def url_host(address: str) -> str:
    """An address as it stands before a colon and a port: of IPv6, in brackets."""
    return f"[{address}]" if ":" in address and is_ip(address) else address


def _whole_schema(schema: dict[str, Any], model: type[Block]) -> None:
    """The schema of a block whose document holds all that it is made of, blocks included.

    Without references to the schemas of those: Prefect's server (3.9.1) answers with HTTP 500 to
    the schema of a block that reaches a union of blocks in two ways, as a plan does. A document may
    still refer to another block, as in `{"source": {"$ref": ...}}`.
    """
    schema_extra(schema, model)
    del schema["block_type_slug"]  # what bears one is taken for a reference
    schema["block_schema_references"] = {}


@cache
def _schema(block: "type[StrictBlock]", options: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    return super(StrictBlock, block).model_json_schema(**dict(options))


class StrictBlock(Block, ABC):
    """A Prefect block that takes no key that it does not know."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", json_schema_extra=_whole_schema)

    @classmethod
    def model_json_schema(cls, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        """The JSON schema, made once: to save a plan, Prefect asks for it some 200 times."""
        return deepcopy(_schema(cls, tuple(sorted(options.items()))))

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
    _resolved: dict[str, list[str]] = PrivateAttr(default_factory=dict)

    @property
    def domain(self) -> str:
        """The name of the failure domain; empty for what belongs to none."""
        return self._domain

    def join(self, domain: str) -> None:
        """Belong to `domain` from here on."""
        self._domain = domain

    def credentials(self) -> set[str]:
        """Names, as in the ledger, of what this block would identify itself with."""
        return set()

    def note(self, kind: UseKind, name: str, detail: str = "") -> None:
        """Tell the ledger that `name` of this block's domain is used now."""
        ledger().note(kind, name, self._domain, detail)

    def note_address(self, host: str, port: int) -> None:
        """Tell the ledger that a connection is made there; a name, with what it leads to."""
        if is_ip(host):
            self.note("address", f"{host}:{port}")
            return
        if host not in self._resolved:
            self._resolved[host] = addresses_of(host)
        self.note("name", host, " ".join(self._resolved[host]))
        for address in self._resolved[host]:
            self.note("address", f"{address}:{port}")


def addresses_of(name: str) -> list[str]:
    """The IP addresses that a name leads to from here, sorted; none where it leads nowhere.

    What then connects to it says that it cannot be resolved.
    """
    try:
        return sorted({str(info[4][0]) for info in socket.getaddrinfo(name, None)})
    except OSError:
        return []


def is_ip(text: str) -> bool:
    """Whether a text is an IP address, of either version."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
