"""The application's own reader: opens one encrypted note with the application's key.

    python3 open_note.py < KEY_AND_NOTE

Standard input is the key, a line, and the note. Ends with 0 if the key opens it, else with 1.
"""

import sys

from cryptography.fernet import Fernet, InvalidToken


def main() -> int:
    """See above."""
    key, _, note = sys.stdin.read().partition("\n")
    try:
        Fernet(key.strip()).decrypt(note.strip().encode())
    except (InvalidToken, ValueError):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
