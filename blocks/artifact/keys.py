"""`python -m blocks.artifact.keys`: the keys that a plan needs, made and printed once.

Each private line belongs into a vault and nowhere else; the public lines belong into the plan.
"""

import argparse

from blocks.artifact.age.keys import generate_identity, recipient_of
from blocks.artifact.manifest import generate_signing_key, public_key_of


def main() -> None:
    """Print an age identity with its recipient, and a signing key with its public key.

    Only when called without arguments: --help must not print a private key.
    """
    argparse.ArgumentParser(
        prog="python -m blocks.artifact.keys",
        description="Make the keys that a plan needs and print them once, the private ones too.",
    ).parse_args()
    identity, signing_key = generate_identity(), generate_signing_key()
    print("# private: into the vault of the domain that it is for")
    print(identity)
    print("# public: among keys.recipients of the plan")
    print(recipient_of(identity))
    print("# private: into the source's vault (or, to sign records, the recovery domain's)")
    print(signing_key)
    print("# public: keys.signer of the plan")
    print(public_key_of(signing_key))


if __name__ == "__main__":
    main()
