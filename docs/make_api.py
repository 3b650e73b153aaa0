"""Write `docs/api.md` from the source: every public name with its arguments and first sentence.

The source is parsed and not imported, so the page needs neither torch nor a model, and the same
source gives the same bytes on every machine.

    python docs/make_api.py            # writes docs/api.md
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

PAGE = Path(__file__).with_name("api.md")
PACKAGE = Path(__file__).parents[1] / "src" / "voxadapt"
#: Commands describe themselves (`--help`).
LEFT_OUT = ("cli", "__main__")
HEAD = """\
# API reference

Every public name with its first sentence, written by `python docs/make_api.py`. Shapes, units,
errors and sources stand in the docstrings: `help(voxadapt.pipeline.score.run)`, or the linked
module. The rooms import downwards only; training and evaluation never import each other
([pyproject.toml](../pyproject.toml) has the order). Commands describe themselves
(`voxadapt --help`).
"""


def module_name(path: Path) -> str:
    """Return the dotted name of a module's file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def documented_modules() -> list[Path]:
    """Return the modules of the page: those at the top, then room by room."""
    paths = [p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).parts[0] not in LEFT_OUT]
    paths = [p for p in paths if p.stem not in LEFT_OUT and not p.stem.startswith("_")]
    return sorted(paths, key=lambda p: (len(p.relative_to(PACKAGE).parts), module_name(p)))


def first_sentence(docstring: str) -> str:
    """Return a docstring's first paragraph on one line, safe in a table."""
    paragraph = inspect.cleandoc(docstring).split("\n\n")[0]
    return " ".join(paragraph.split()).replace("|", "\\|")


def signature(node: ast.FunctionDef) -> str:
    """Return a function's name with the names of its arguments; optional ones end in `=`."""
    given = node.args
    positional = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    required = len(positional) - len(given.defaults)
    names = [name if n < required else f"{name}=" for n, name in enumerate(positional)]
    names += [f"*{given.vararg.arg}"] if given.vararg else []
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        names.append(argument.arg if default is None else f"{argument.arg}=")
    names += [f"**{given.kwarg.arg}"] if given.kwarg else []
    return f"{node.name}({', '.join(name for name in names if name not in ('self', 'cls'))})"


def _public(body: list[ast.stmt]) -> list[ast.FunctionDef | ast.ClassDef]:
    known = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [n for n in known if not n.name.startswith("_") and ast.get_docstring(n) is not None]


def rows(node: ast.FunctionDef | ast.ClassDef, owner: str = "") -> list[str]:
    """Return the table's rows of a function, or of a class and its public methods."""
    marks = [ast.unparse(mark) for mark in node.decorator_list]
    is_value = isinstance(node, ast.ClassDef) or "property" in marks
    name = node.name if is_value else signature(node)
    lines = [f"| `{owner}{name}` | {first_sentence(ast.get_docstring(node) or '')} |"]
    for method in _public(node.body) if isinstance(node, ast.ClassDef) else []:
        if not any("validator" in ast.unparse(mark) for mark in method.decorator_list):
            lines += rows(method, f"{node.name}.")
    return lines


def page() -> str:
    """Return the whole page."""
    lines = [HEAD]
    for path in documented_modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if members := _public(tree.body):
            source = f"[source](../{path.relative_to(PACKAGE.parents[1]).as_posix()})"
            lines += [f"## {module_name(path)}", ""]
            lines += [f"{first_sentence(ast.get_docstring(tree) or '')} {source}", ""]
            lines += ["| name | |", "|---|---|"]
            lines += [row for node in members for row in rows(node)]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE}: {PAGE.read_text(encoding='utf-8').count('| `')} names")
