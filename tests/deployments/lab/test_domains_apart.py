"""What one domain accepts, the other one refuses; and what is in each."""

import ssl
from pathlib import Path
from typing import Any

import boto3
import paramiko
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, SSLError

from deployments.lab.parts import PARTS
from tests.deployments.lab.conftest import LabUnderTest, connect, minted

SIDES = [("source", "recovery"), ("recovery", "source")]


def bucket_of(store: dict[str, Any], credentials_file: str, ca_file: str) -> Any:
    """A client of a store with somebody's credentials."""
    lines = Path(credentials_file).read_text().splitlines()
    values = dict(line.split(" = ") for line in lines if " = " in line)
    return boto3.client(
        "s3",
        endpoint_url=store["endpoint"],
        region_name=store["region"],
        verify=ca_file,
        config=Config(
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
        ),
        **values,
    )


@pytest.mark.parametrize(("ours", "theirs"), SIDES)
def test_ssh_keys_open_their_own_domain_only(running: LabUnderTest, ours: str, theirs: str) -> None:
    own_key = running.plan[ours]["hosts"][0]["identity_file"]
    hosts = [*running.plan[theirs]["hosts"], running.plan[theirs]["vault"]["host"]]
    for host in hosts:
        with pytest.raises(paramiko.AuthenticationException):
            connect(host, key_filename=own_key)
    host = running.plan[ours]["hosts"][0]
    connect(host, key_filename=own_key).close()
    with pytest.raises(paramiko.AuthenticationException):
        connect(host, key_filename=own_key, username="somebody")
    with pytest.raises(paramiko.AuthenticationException):
        connect(host, password="")


@pytest.mark.parametrize(("ours", "theirs"), SIDES)
def test_store_keys_open_their_own_store_only(
    running: LabUnderTest, ours: str, theirs: str
) -> None:
    own, other = running.plan[ours]["store"], running.plan[theirs]["store"]
    client = bucket_of(own, own["credentials_file"], own["ca_file"])
    client.put_object(Bucket=own["bucket"], Key="apart", Body=b"own")
    assert client.get_object(Bucket=own["bucket"], Key="apart")["Body"].read() == b"own"
    client.delete_object(Bucket=own["bucket"], Key="apart")
    intruder = bucket_of(other, own["credentials_file"], other["ca_file"])
    for call, more in (("list_objects_v2", {}), ("put_object", {"Key": "apart", "Body": b""})):
        with pytest.raises(ClientError) as refused:
            getattr(intruder, call)(Bucket=other["bucket"], **more)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.parametrize(("ours", "theirs"), SIDES)
def test_each_domain_has_its_own_authority(running: LabUnderTest, ours: str, theirs: str) -> None:
    own, other = running.plan[ours]["store"], running.plan[theirs]["store"]
    stranger = bucket_of(own, own["credentials_file"], other["ca_file"])
    with pytest.raises(SSLError):
        stranger.list_buckets()
    ssl.create_default_context(cafile=own["ca_file"])


def test_vaults(running: LabUnderTest, tmp_path: Path) -> None:
    names = {
        side: {path.name for path in running.places.secrets(side).iterdir()}
        for side in ("east", "west")
    }
    both = {
        "farside-age-identity",
        "farside-age-identity.pub",
        "shop-notes-key",
    }
    of_parts = [minted(part, tmp_path) for part in PARTS]
    assert names["east"] == both.union({"farside-signing-key"}, *(of["east"] for of in of_parts))
    assert names["west"] == both.union({"record-signing-key"}, *(of["west"] for of in of_parts))
    identities = {
        (running.places.secrets(side) / "farside-age-identity").read_text() for side in names
    }
    assert len(identities) == 2
    assert len(set(running.plan["keys"]["recipients"])) == 2
    secret = identities | {(running.places.secrets("west") / "shop-password").read_text()}
    plan = (running.places.plans / "postgres.yaml").read_text()
    assert not [value for value in secret if value in plan]
