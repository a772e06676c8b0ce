"""What Prefect asks of every block, and what a plan's reader asks of every field."""

from abc import ABC
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from pydantic import BaseModel, SecretStr, TypeAdapter

from blocks import collection
from blocks.block import StrictBlock
from blocks.engines.engine import Engine
from blocks.engines.registry import AnyEngine, engines
from blocks.fences.fence import Fence
from blocks.hosts.host import Host
from blocks.plan.model import Plan
from blocks.stores.store import ObjectStore
from blocks.vaults.vault import KeyVault

BLOCKS: list[type[Block]] = sorted(
    (item for item in vars(collection).values() if Block.is_block_class(item)),
    key=lambda block: block.__name__,
)
CONTRACTS: list[type[StrictBlock]] = [Engine, Fence, Host, KeyVault, ObjectStore]


def concrete(block: type[Block]) -> Iterator[type[Block]]:
    """All classes below `block` that can be configured."""
    for below in block.__subclasses__():
        if below.__module__.startswith("blocks.") and not below.__abstractmethods__:
            yield below
        yield from concrete(below)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """All models that an annotation names, however deeply."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    if annotation is AnyEngine:
        yield from engines().values()
    for part in getattr(annotation, "__args__", ()):
        yield from models_in(part)


def all_models() -> list[type[BaseModel]]:
    """Every model of which a plan, or a block by itself, can consist."""
    found: dict[type[BaseModel], None] = {}
    waiting: list[type[BaseModel]] = list(BLOCKS)
    while waiting:
        model = waiting.pop()
        if model not in found:
            found[model] = None
            for field in model.model_fields.values():
                waiting += models_in(field.annotation)
    return sorted(found, key=lambda model: f"{model.__module__} {model.__name__}")


FIELDS = [
    (f"{model.__module__}.{model.__name__}.{name}", field)
    for model in all_models()
    for name, field in model.model_fields.items()
]


@pytest.fixture(params=BLOCKS, ids=lambda block: str(block.__name__))
def block(request: pytest.FixtureRequest) -> type[Block]:
    """Every block of the collection."""
    return request.param  # type: ignore[no-any-return]


class TestPrefectsOwnSuite(BlockStandardTestSuite):
    """What Prefect's own integrations pass, for every block.

    Two of its tests are left out. A logo is fetched from the network, and documentation has a
    public URL: farside has neither network in its tests nor a public address.
    """

    test_has_a_valid_image = None  # type: ignore[assignment]
    test_has_a_documentation_url = None  # type: ignore[assignment]

    @pytest.fixture
    def block(self, block: type[Block]) -> type[Block]:
        return block


def test_the_collection_has_every_block() -> None:
    known = set(BLOCKS)
    assert {Plan, *engines().values()} <= known
    for contract in CONTRACTS:
        assert set(concrete(contract)) <= known, contract


def every_class(of: type[Block]) -> Iterator[type[Block]]:
    for below in of.__subclasses__():
        if below.__module__.startswith("blocks."):
            yield below
        yield from every_class(below)


def test_what_cannot_be_configured_is_offered_to_no_one() -> None:
    """Prefect's server registers every block that it knows but those with ABC in their bases."""
    offered = {block for block in {*every_class(Block)} if ABC not in block.__bases__}
    assert offered == set(BLOCKS)


def test_names_are_farsides(block: type[Block]) -> None:
    assert block.get_block_type_slug().startswith("farside-")
    assert block.get_block_type_name().startswith("farside ")
    assert str(block.get_description()).endswith(".")


def test_every_field_is_described() -> None:
    assert len(FIELDS) > 150
    said = {place: field.description or "" for place, field in FIELDS}
    assert [place for place, text in said.items() if len(text) < 15 or text[-1] != "."] == []
    assert [place for place, text in said.items() if "  " in text or text != text.strip()] == []


def test_no_secret_is_a_field() -> None:
    """A plan names secrets. What it holds can be read by all who reach Prefect's API."""
    assert [place for place, field in FIELDS if secret_in(field.annotation)] == []
    assert [block for block in BLOCKS if block.model_json_schema()["secret_fields"]] == []


def secret_in(annotation: Any) -> bool:
    parts = getattr(annotation, "__args__", ())
    return annotation is SecretStr or any(secret_in(part) for part in parts)


def test_a_schema_is_whole(block: type[Block]) -> None:
    """See `blocks.block`: a document holds all that it is made of."""
    schema = block.model_json_schema()
    assert schema["block_schema_references"] == {}
    assert "block_type_slug" not in str(schema)


def test_a_plans_schema_lists_every_engine() -> None:
    schema = Plan.model_json_schema()
    assert set(schema["definitions"]["AnyEngine"]["discriminator"]["mapping"]) == set(engines())


def test_a_form_may_fill_in_every_default() -> None:
    """What a schema says of a default must be taken back: Prefect's forms send it."""
    for model in all_models():
        properties: Mapping[str, Any] = model.model_json_schema()["properties"]
        for name, field in model.model_fields.items():
            if "default" in properties[name]:
                taken: Any = TypeAdapter(field.rebuild_annotation())
                assert taken.validate_python(properties[name]["default"]) == field.get_default()
