"""What `blocks/vaults/vault.py` says of every vault: secrets under names, never shown."""

import pytest

from blocks.artifact.age.keys import generate_identity, recipient_of
from blocks.errors import FarsideError
from blocks.evidence.uses import new_ledger
from blocks.hosts.local import LocalHost
from blocks.vaults.vault import KeyVault, SecretMissing
from tests.conformance.table import VAULTS, Implementation
from tests.conformance.worlds import VaultUnderTest

SECRET = "AGE-SECRET-KEY-1EXAMPLE"


@pytest.fixture(params=VAULTS, ids=str)
def world(request: pytest.FixtureRequest) -> VaultUnderTest:
    kind: Implementation = request.param
    made = kind.made(request)
    assert isinstance(made, VaultUnderTest)
    assert isinstance(made.vault, kind.block)
    return made


@pytest.fixture
def vault(world: VaultUnderTest) -> KeyVault:
    """A vault with some secrets, and what is none."""
    world.keep("farside-age-identity", f"{SECRET}\n".encode())
    world.keep("postgres-password", "päss word".encode())
    world.keep("binary", b"\xff" + SECRET.encode())
    world.keep(".hidden", b"x")
    return world.vault


def test_an_empty_vault(world: VaultUnderTest) -> None:
    assert world.vault.names() == []
    assert world.vault.identities() == {}
    assert world.vault.exposed() == {}


def test_names(vault: KeyVault) -> None:
    assert vault.names() == ["binary", "farside-age-identity", "postgres-password"]


def test_read(vault: KeyVault) -> None:
    vault.join("west")
    with new_ledger() as uses:
        secret = vault.read("farside-age-identity")
    assert secret.get_secret_value() == SECRET
    assert vault.read("postgres-password").get_secret_value() == "päss word"
    noted = [(use.kind, use.name, use.domain) for use in uses.uses()]
    assert ("key", "farside-age-identity", "west") in noted
    assert SECRET not in f"{secret!r} {vault!r} {noted}"


@pytest.mark.parametrize("name", ["nothing", "", "../west/key", ".hidden", "a/b", "a\0b"])
def test_no_such_secret(vault: KeyVault, name: str) -> None:
    vault.join("west")
    with pytest.raises(SecretMissing, match="put it there") as caught:
        vault.read(name)
    assert (caught.value.finding, caught.value.domain) == ("key-only-in-source", "west")


def test_what_is_no_text_is_not_shown(vault: KeyVault) -> None:
    with pytest.raises(FarsideError, match="binary is not text") as caught:
        vault.read("binary")
    assert caught.value.__cause__ is None
    assert SECRET not in str(caught.value)


def test_identities_are_known_by_their_public_halves(world: VaultUnderTest) -> None:
    """None of them is read for it."""
    identity = generate_identity()
    world.keep("identity", identity.encode())
    world.keep("identity.pub", f"{recipient_of(identity)}\n".encode())
    world.keep("lonely", generate_identity().encode())
    with new_ledger() as uses:
        assert world.vault.identities() == {recipient_of(identity): "identity"}
    assert {use.name for use in uses.uses() if use.kind == "key"} == {"identity.pub"}


def test_private_secrets_are_not_exposed(vault: KeyVault) -> None:
    assert vault.exposed() == {}


def test_what_can_be_given_out_is_not_called_locked(vault: KeyVault) -> None:
    assert vault.locked("farside-age-identity") == ""
    assert vault.locked("no-such") == ""


def test_another_program_is_not_its_own(vault: KeyVault) -> None:
    assert not vault.runs_as("postgres -D /srv/data")


def test_close_and_use_again(vault: KeyVault) -> None:
    for _ in range(2):
        assert vault.read("farside-age-identity").get_secret_value() == SECRET
        vault.close()
        vault.close()


def test_a_plan_keeps_it_as_it_is(vault: KeyVault) -> None:
    document = vault.model_dump(mode="json")
    assert type(vault).model_validate(document).model_dump(mode="json") == document


def test_where_it_lies(vault: KeyVault) -> None:
    host, folder = vault.machine, vault.folder_here
    assert folder is None or (folder.is_dir() and isinstance(host, LocalHost))
