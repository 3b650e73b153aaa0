"""The templates of the pages, and the one way to render them."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"


def new_environment() -> Environment:
    """Return a Jinja environment: autoescape on, undefined names are errors."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def source(name: str) -> str:
    """Read a template as it stands: a script or a style sheet."""
    return (TEMPLATES / name).read_text(encoding="utf-8")
