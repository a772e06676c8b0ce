"""The command `farside keys`: the keys that a plan needs, made and printed once.

Each private line belongs into a vault and nowhere else; the public lines belong into the plan.
"""

import typer

from blocks.artifact.age.keys import generate_identity, recipient_of
from blocks.artifact.manifest import generate_signing_key, public_key_of


def command() -> None:
    """Make the keys that a plan needs and print them once, the private ones too."""
    identity, signing_key = generate_identity(), generate_signing_key()
    typer.echo("# private: into the vault of the domain that it is for")
    typer.echo(identity)
    typer.echo("# public: among keys.recipients of the plan")
    typer.echo(recipient_of(identity))
    typer.echo("# private: into the source's vault (or, to sign records, the recovery domain's)")
    typer.echo(signing_key)
    typer.echo("# public: keys.signer of the plan")
    typer.echo(public_key_of(signing_key))
