"""Plans saved as Prefect blocks: kept by a server, changed through its API, rehearsed by name."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import BlockDocumentUpdate
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from blocks.plan.loading import PlanError, load_plan, load_saved
from blocks.plan.model import Plan
from deployments import lab
from flows.command import USAGE
from flows.site import saved
from tests import mechanisms
from tests.blocks.plan.test_plan import save, text
from tests.flows.conftest import CHECKOUT, World
from tests.servers import PrefectServer

__all__ = ["text"]


@pytest.fixture
def client(tmp_path: Path, prefect: PrefectServer) -> Iterator[SyncPrefectClient]:
    """A client of the server that all tests share; farside's own use the same one."""
    with (
        temporary_settings({PREFECT_API_URL: prefect.ready(), PREFECT_HOME: tmp_path / "prefect"}),
        get_client(sync_client=True) as made,
    ):
        yield made


def change(client: SyncPrefectClient, block: str, *place: str, value: object) -> None:
    """Change one value of a saved block as the UI does: all of its data is sent back."""
    kind, _, name = block.partition("/")
    document = client.read_block_document_by_name(name, kind)
    part: Any = document.data
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    update = BlockDocumentUpdate(
        block_schema_id=document.block_schema_id, data=document.data, merge_existing_data=False
    )
    client.update_block_document(document.id, update)


def test_a_plan_is_saved_changed_and_loaded(
    client: SyncPrefectClient, tmp_path: Path, text: str
) -> None:
    plan = load_plan(save(tmp_path, text))
    document_id = plan.save("shop-a", overwrite=True)
    loaded = saved("shop-a")
    assert loaded.model_dump(mode="json") == plan.model_dump(mode="json") | {
        "_block_document_id": str(document_id),
        "_block_document_name": "shop-a",
        "_is_anonymous": False,
    }
    assert type(loaded.engine) is type(plan.engine)
    assert loaded.digest == plan.digest
    change(client, "farside-plan/shop-a", "objectives", value={"rto": "20m", "rpo": "60s"})
    change(client, "farside-plan/shop-a", "engine", "target", "data_dir", value="/e")
    changed = text.replace("rto: 15m", "rto: 20m").replace("data_dir: /d", "data_dir: /e")
    assert saved("shop-a").digest == load_plan(save(tmp_path, changed)).digest != plan.digest


def test_mistakes_in_a_saved_plan_are_said(
    client: SyncPrefectClient, tmp_path: Path, text: str
) -> None:
    load_plan(save(tmp_path, text)).save("shop-b", overwrite=True)
    change(client, "farside-plan/shop-b", "objectives", "rto", value="soon")
    change(client, "farside-plan/shop-b", "source", "colour", value="red")
    with pytest.raises(PlanError) as caught:
        saved("shop-b")
    assert caught.value.message.splitlines() == [
        "block shop-b: source.colour: unknown key",
        "block shop-b: objectives.rto: a duration is written like 90s, 15m or 1h30m",
    ]


def test_a_saved_domain_serves_more_than_one_plan(
    client: SyncPrefectClient, tmp_path: Path, text: str
) -> None:
    """A document may refer to another one: a change there is one of every plan."""
    plan = load_plan(save(tmp_path, text))
    plan.source.save("east-c", overwrite=True)
    plan.save("shop-c", overwrite=True)
    assert saved("shop-c").digest == plan.digest
    change(client, "farside-failure-domain/east-c", "names", value=["east.example"])
    assert saved("shop-c").source.names == ["east.example"]


def test_a_name_that_no_plan_has(client: SyncPrefectClient, tmp_path: Path) -> None:
    assert load_saved("no-such") is None
    with pytest.raises(PlanError, match=r"no plan 'no-such': neither a file.* nor a saved block"):
        saved("no-such")
    done = subprocess.run(
        [sys.executable, "-m", "flows.rehearse", "no-such", "--results", str(tmp_path / "results")],
        cwd=CHECKOUT,
        env=os.environ
        | {"PREFECT_API_URL": str(client.api_url), "PREFECT_HOME": str(tmp_path / "prefect")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == USAGE, done.stderr
    assert "no plan 'no-such': neither a file" in done.stderr
    assert list((tmp_path / "results").iterdir()) == [], "no record: nothing was touched"


def test_all_blocks_can_be_registered(client: SyncPrefectClient, tmp_path: Path) -> None:
    """The command of docs/prefect.md. What cannot be configured is in no catalogue."""
    words = ["prefect", "block", "register", "-m", "blocks.collection"]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=CHECKOUT,
        env={"PREFECT_API_URL": str(client.api_url), "PREFECT_HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "farside plan" in done.stdout
    assert "farside PostgreSQL engine" in done.stdout
    known = {kind.slug for kind in client.read_block_types()}
    assert {"farside-plan", "farside-etcd", "farside-ssh-host", "farside-s3-store"} <= known
    assert known.isdisjoint({"engine", "host", "fence", "keyvault", "objectstore", "strictblock"})


@mechanisms.WHOLE
def test_the_labs_plan_is_rehearsed_by_name(world: World, client: SyncPrefectClient) -> None:
    """Saved, changed as in a form, rehearsed as an operator does."""
    path = lab.plan_path(world.places.root, "postgres")
    plan = load_plan(path)
    plan.save("lab-a", overwrite=True)
    assert saved("lab-a").digest == plan.digest
    change(client, "farside-plan/lab-a", "objectives", value={"rto": "1h", "rpo": "24h"})
    outcome = world.start("lab-a", "--select", "latest").end()
    assert (outcome.code, outcome.findings) == (0, []), outcome.text
    assert outcome.record is not None
    assert outcome.record.rto_seconds == 3600
    document = yaml.safe_load(path.read_text())
    document["objectives"] = {"rto": "1h", "rpo": "24h"}
    assert outcome.record.plan.digest == Plan.model_validate(document).digest
    assert world.left() == []
