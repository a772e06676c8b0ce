"""A plan from a file or a saved block, and where in it the mistakes are."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from blocks.errors import PermanentError
from blocks.plan import checks as plan_checks
from blocks.plan.model import Plan


class PlanError(PermanentError):
    """The plan cannot be used. One line for each mistake, with its place in the file."""


def load_plan(path: Path, *, local_files: bool = False) -> Plan:
    """Read and validate a plan file; with `local_files`, also the files that it names here.

    Raises PlanError that lists every mistake as `FILE:LINE: where: what`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: cannot be read: {error}") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
        repeated = list(_repeated(root))
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise PlanError(f"{path}{line}: not YAML: {problem}") from None
    except RecursionError:
        raise PlanError(f"{path}: nested too deeply, or inside itself") from None
    if root is None or not isinstance(document, dict):
        raise PlanError(f"{path}:1: a plan is a mapping; see the example in docs/plan.md")
    duplicates = [
        f"{path}:{node.start_mark.line + 1}: {node.value}: given twice" for node in repeated
    ]
    if duplicates:
        raise PlanError("\n".join(duplicates))
    try:
        plan = Plan.model_validate(document)
        if local_files:
            plan_checks.refuse("Plan", plan_checks.missing_files(plan))
        return plan
    except ValidationError as error:
        raise PlanError("\n".join(_mistakes(path, root, error))) from None


def load_saved(name: str) -> Plan | None:
    """Read and validate a plan saved as a Prefect block; None if no plan is saved under that name.

    Raises PlanError that lists every mistake as `block NAME: where: what`, and what Prefect's
    client raises where its server cannot be asked.
    """
    try:
        plan = Plan.load(name)
    except ValueError:
        return None
    except RuntimeError as error:  # so Prefect says that the document is not valid
        if not isinstance(error.__cause__, ValidationError):
            raise
        found = _messages(error.__cause__)
        places = [(".".join(str(step) for step in loc) or "plan", text) for loc, text in found]
        raise PlanError(
            "\n".join(f"block {name}: {place}: {text}" for place, text in places)
        ) from None
    if not isinstance(plan, Plan):
        raise PermanentError("Prefect answered with a coroutine", operation="loading a plan block")
    return plan


def _mistakes(path: Path, root: yaml.Node, error: ValidationError) -> Iterator[str]:
    for loc, message in _messages(error):
        node, place = _locate(root, loc)
        yield f"{path}:{node.start_mark.line + 1}: {place or 'plan'}: {message}"


def _messages(error: ValidationError) -> Iterator[tuple[tuple[int | str, ...], str]]:
    for mistake in error.errors(include_url=False, include_input=False):
        message = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "extra_forbidden":
            message = "unknown key"
        elif mistake["type"] == "missing":
            message = "required, but missing"
        yield mistake["loc"], message


def _locate(root: yaml.Node, loc: Sequence[int | str]) -> tuple[yaml.Node, str]:
    """The deepest node that `loc` leads to, and the path in words.

    Pydantic puts a union's tag into `loc`; what is not in the file is passed over, except a
    missing last key, which belongs to the path.
    """
    node, marked, place = root, root, ""
    for position, step in enumerate(loc):
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(step)), None)
            if found is not None:
                marked, node = found
                place = f"{place}.{step}" if place else str(step)
            elif position == len(loc) - 1:
                place = f"{place}.{step}" if place else str(step)
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value)
        ):
            node = marked = node.value[step]
            place = f"{place}[{step}]"
    return marked, place


def _repeated(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """Keys that a mapping holds twice: YAML would silently take the last."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield key
            seen.add(key.value)
            yield from _repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated(item)
