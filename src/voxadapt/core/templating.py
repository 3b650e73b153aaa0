"""Jinja templates and the scripts of pages, shared by everything that writes HTML.

Each package keeps its templates in a folder `templates`; the style sheet that all pages share lies
in the one beside this module.
"""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

SHARED = Path(__file__).parent / "templates"


def new_environment(templates: Path, **changed: Any) -> Environment:
    """Return a Jinja environment: autoescape on, undefined names are errors.

    Beside the package's templates the shared ones are found; `changed` are other options of Jinja.
    """
    options = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True} | changed
    loader = FileSystemLoader([templates, SHARED])
    return Environment(loader=loader, undefined=StrictUndefined, **options)


@dataclass(frozen=True, slots=True)
class Inline:
    """A script or style sheet that a page holds."""

    code: Markup  # its text, exactly as between its tags
    allowance: Markup  # the source expression that lets a content security policy allow it alone


def inline(*files: Path) -> Inline:
    """Read scripts or style sheets, one after the other, for a page."""
    code = "".join(file.read_text(encoding="utf-8") for file in files)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return Inline(Markup(code), Markup(f"'sha256-{digest}'"))
