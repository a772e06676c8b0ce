# What CI runs, by name. `just` alone lists it.
_default:
    @just --list

# Lint, format and types
lint:
    ruff check .
    ruff format --check .
    mypy

# The first tier: minutes
test:
    pytest

# The rest; SEED draws a sample of each mechanism
slow seed="1":
    pytest -m slow -n 3 --draw {{seed}}

# Everything that CI runs, on a machine that has nothing yet
ci:
    .ci/run
