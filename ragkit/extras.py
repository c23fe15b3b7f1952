"""What is missing, and how to get it: one hint for every part of the package that not everybody needs."""

from __future__ import annotations


def install(extra: str) -> str:
    """The command for one of pyproject.toml's extras. From the checkout: PyPI's ragkit is another project."""
    return f"pip install -e '.[{extra}]' in ragkit's checkout"
