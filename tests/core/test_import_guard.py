"""Nothing imports the model's packages before the guard (`core.compat`) has set the stage."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "voxadapt"
GUARDED = {"transformers", "qwen_tts"}


def at_import(node: ast.AST) -> list[str]:
    """Return the guarded packages that a module imports when it is imported itself."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return []
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return [name for child in node.orelse for name in at_import(child)]
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
    found = [name for name in names if name.split(".")[0] in GUARDED]
    return found + [name for child in ast.iter_child_nodes(node) for name in at_import(child)]


@pytest.mark.slow
def test_no_module_imports_a_guarded_package_at_import() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    found = {
        file.relative_to(PACKAGE).as_posix(): names
        for file in files
        if (names := at_import(ast.parse(file.read_text(encoding="utf-8"))))
    }
    assert files
    assert found == {}, "import it inside a function, after `import_qwen_tts()`"


@pytest.mark.parametrize(
    ("code", "number"),
    [
        ("import transformers", 1),
        ("from transformers.utils import logging", 1),
        ("try:\n    import qwen_tts.core as core\nexcept ImportError:\n    pass", 1),
        ("class A:\n    import qwen_tts", 1),
        ("if TYPE_CHECKING:\n    import qwen_tts\nelse:\n    import transformers", 1),
        ("def f():\n    import qwen_tts", 0),
        ("import transformers_not", 0),
    ],
)
def test_the_search_finds_them(code: str, number: int) -> None:
    assert len(at_import(ast.parse(code))) == number
