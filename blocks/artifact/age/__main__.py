"""The command behind `python -m blocks.artifact.age`: encrypts or decrypts standard input."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from blocks.artifact import age
from blocks.errors import FarsideError

_READ = 2**20


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 only if all of the input was read, authenticated and written; 1 if not."""
    options = _parse(argv)
    try:
        pieces = _read()
        if options.decrypt:
            identities = [key for path in options.identity for key in _identities(path)]
            _write(age.decrypt(pieces, identities))
        else:
            _write(age.encrypt(pieces, [age.parse_recipient(r) for r in options.recipient]))
    except FarsideError as error:
        return _refuse(str(error))
    except BrokenPipeError:
        return _refuse("the reader of the output is gone")
    except OSError as error:
        return _refuse(f"{error.filename or 'standard input or output'}: {error.strerror}")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m blocks.artifact.age",
        description="Encrypts standard input to age recipients, or decrypts it.",
    )
    parser.add_argument(
        "-r", "--recipient", action="append", default=[], metavar="age1...", help="may be repeated"
    )
    parser.add_argument("-d", "--decrypt", action="store_true")
    parser.add_argument(
        "-i", "--identity", action="append", default=[], metavar="FILE", help="may be repeated"
    )
    options = parser.parse_args(argv)
    if options.decrypt and (options.recipient or not options.identity):
        _usage(parser, "-d takes -i FILE, and no -r")
    if not options.decrypt and (options.identity or not options.recipient):
        _usage(parser, "give -r RECIPIENT to encrypt, or -d -i FILE to decrypt")
    return options


def _usage(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    parser.error(message)


def _identities(path: str) -> list[X25519PrivateKey]:
    try:
        return age.read_identities(Path(path).read_text("utf-8"))
    except UnicodeDecodeError:
        raise age.AgeKeyMalformed(f"{path}: not text", operation="read identities") from None
    except age.AgeKeyMalformed as error:
        raise age.AgeKeyMalformed(f"{path}: {error.message}") from None


def _read() -> Iterator[memoryview]:
    buffer = bytearray(_READ)
    view = memoryview(buffer)
    while count := os.readv(0, [buffer]):
        yield view[:count]


def _write(pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(1, rest) :]


def _refuse(message: str) -> int:
    sys.stderr.write(f"age: {message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
