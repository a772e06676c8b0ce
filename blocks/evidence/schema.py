"""How data classes of the record describe themselves in a JSON schema."""

from pydantic import ConfigDict

DESCRIBED = ConfigDict(use_attribute_docstrings=True)
"""For `__pydantic_config__`: the text under a field is its description."""
