"""Which keys of params.yaml a stage reads, told from the sources: no module is run.

A call graph by name leads from a stage's function to all that it may call inside its import
closure. In these functions, attributes of values whose annotation is a section of the parameters
are reads. Names alone decide what is called, so that the answer can be too large, never too small.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from closure import SOURCE, closure, module_file

WHOLE = ("model_dump", "model_dump_json")
#: They only hand sections on; what is read of a track counts where it is read.
BUILDERS = ("speaker_track", "language_track")
LOOKED_AT = (
    ast.FunctionDef, ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.Name, ast.Attribute, ast.Constant
)  # fmt: skip
TRACK_FIELDS = ("candidates", "speaker_name", "tag")


@dataclass
class Class:
    """Annotations of a class: fields, and what its methods and properties return."""

    fields: dict[str, str] = field(default_factory=dict)
    returns: dict[str, str] = field(default_factory=dict)
    is_section: bool = False


@dataclass(frozen=True)
class Function:
    """One function or method, with its class where it is a method."""

    node: ast.FunctionDef
    owner: str | None


def _simple(annotation: ast.expr | None) -> str:
    """Return the class that an annotation names, without `| None` and quotes."""
    if annotation is None:
        return ""
    text = ast.unparse(annotation).strip("'\"").replace(" | None", "")
    return text if " | " in text else text.rpartition(".")[2]


@cache
def _module(name: str) -> tuple[dict[str, Class], tuple[Function, ...]]:
    file = module_file(name)
    assert file is not None
    classes: dict[str, Class] = {}
    functions: list[Function] = []

    def visit(body: list[ast.stmt], owner: str | None) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                bases = {_simple(base) for base in node.bases}
                classes[node.name] = known = Class(is_section="Section" in bases)
                for item in node.body:
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                        known.fields[item.target.id] = _simple(item.annotation)
                    elif isinstance(item, ast.FunctionDef):
                        known.returns[item.name] = _simple(item.returns)
                visit(node.body, node.name)
            elif isinstance(node, ast.FunctionDef):
                functions.append(Function(node, owner))
            elif isinstance(node, ast.If | ast.Try):
                visit(node.body, owner)

    visit(ast.parse(file.read_text(encoding="utf-8")).body, None)
    return classes, tuple(functions)


@cache
def _walk(node: ast.AST) -> tuple[ast.AST, ...]:
    """Return what is looked at of a function's nodes."""
    return tuple(inner for inner in ast.walk(node) if isinstance(inner, LOOKED_AT))


@cache
def _templates_of(node: ast.AST) -> tuple[str, ...]:
    """Return the texts of the templates that a function names."""
    constants = (n.value for n in _walk(node) if isinstance(n, ast.Constant))
    names = {value for value in constants if str(value).endswith(".html.j2")}
    files = sorted(SOURCE.rglob("*.html.j2")) if names else []
    return tuple(file.read_text(encoding="utf-8") for file in files if file.name in names)


class Reader:
    """Follows one stage through the functions of its import closure."""

    def __init__(self, stage_module: str) -> None:
        self.classes: dict[str, Class] = {}
        self.by_name: dict[str, list[Function]] = {}
        for name in sorted(closure(stage_module)):
            classes, functions = _module(name)
            self.classes |= classes
            for function in functions:
                self.by_name.setdefault(function.node.name, []).append(function)
        self.start = [f for f in _module(stage_module)[1] if f.node.decorator_list] or list(
            _module(stage_module)[1]
        )

    def reads(self) -> set[tuple[str, ...]]:
        """Return reads as paths: `("SelectParams", "seed")`, or from `Params` on, the whole way."""
        found: set[tuple[str, ...]] = set()
        seen: set[int] = set()
        open_ = list(self.start)
        while open_:
            function = open_.pop()
            if id(function.node) in seen or function.node.name in BUILDERS:
                continue
            seen.add(id(function.node))
            scope = self._scope(function)
            found |= set(self._reads_in(function, scope))
            found |= set(self._reads_of_templates(function))
            for node in _walk(function.node):
                called = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
                if isinstance(called, str):
                    owners: tuple[str | None, ...] | None = (None,)  # a name is no method's
                    if isinstance(node, ast.Attribute):
                        path = self._path(node.value, scope)
                        owners = (None, *path[-1].split(" | ")) if path else None
                    open_ += [f for f in self.by_name.get(called, [])
                              if owners is None or f.owner in owners]  # fmt: skip
                    if called in self.classes:  # a constructor, and what it runs
                        open_ += [f for f in self.by_name.get("__init__", []) if f.owner == called]
                        open_ += [f for f in self.by_name.get("__post_init__", [])
                                  if f.owner == called]  # fmt: skip
        return found

    def _reads_in(
        self, function: Function, scope: dict[str, tuple[str, ...]]
    ) -> Iterator[tuple[str, ...]]:
        for node in _walk(function.node):
            if not isinstance(node, ast.Attribute):
                continue
            path = self._path(node.value, scope)
            if path == ("Track",) and node.attr in TRACK_FIELDS:
                yield ("Track", node.attr)
            for owner in path[-1].split(" | ") if path else ():
                known = self.classes[owner]
                if not known.is_section:
                    continue
                whole = (*path[:-1], owner)
                if node.attr in WHOLE:
                    yield from (self._named(whole, name) for name in self._leaves(owner))
                elif node.attr in known.fields and not self._is_section(known.fields[node.attr]):
                    yield self._named(whole, node.attr)

    def _reads_of_templates(self, function: Function) -> Iterator[tuple[str, ...]]:
        """Yield what the templates that a function names read of `params` and `language`."""
        for text in _templates_of(function.node):
            for variable, keys in re.findall(r"\b(params|language)((?:\.\w+)+)", text):
                owner = {"params": "Params", "language": "LanguageParams"}[variable]
                path = keys[1:].split(".")
                if path[0] in self.classes[owner].fields:
                    yield (owner, *path)

    def _leaves(self, owner: str) -> Iterator[str]:
        for name, kind in self.classes[owner].fields.items():
            if self._is_section(kind):
                yield from (f"{name}.{inner}" for inner in self._leaves(kind))
            else:
                yield name

    def _is_section(self, name: str) -> bool:
        return name in self.classes and self.classes[name].is_section

    def _known(self, kind: str) -> bool:
        return all(part in self.classes for part in kind.split(" | "))

    @staticmethod
    def _named(path: tuple[str, ...], last: str) -> tuple[str, ...]:
        # (Params, "train", TrainParams) -> ("Params", "train", last); (SelectParams,) -> by type
        keys = [part for part in path[1:] if part[0].islower()]
        return (path[0], *keys, last)

    def _scope(self, function: Function) -> dict[str, tuple[str, ...]]:
        arguments = function.node.args
        scope: dict[str, tuple[str, ...]] = {}
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if self._known(kind := _simple(argument.annotation)):
                scope[argument.arg] = (kind,)
        if function.owner is not None and arguments.args:
            scope.setdefault(arguments.args[0].arg, (function.owner,))
        for inner in _walk(function.node):  # functions inside, and what is assigned
            if isinstance(inner, ast.FunctionDef) and inner is not function.node:
                for argument in inner.args.args:
                    if self._known(kind := _simple(argument.annotation)):
                        scope[argument.arg] = (kind,)
        for _ in range(2):
            for node in _walk(function.node):
                if isinstance(node, ast.Assign):
                    self._assign(node.targets[0], node.value, scope)
                elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    if self._known(kind := _simple(node.annotation)):
                        scope[node.target.id] = (kind,)
                elif isinstance(node, ast.NamedExpr):
                    self._assign(node.target, node.value, scope)
        return scope

    def _assign(self, target: ast.expr, value: ast.expr, scope: dict[str, tuple[str, ...]]) -> None:
        if isinstance(target, ast.Name) and (path := self._path(value, scope)):
            scope[target.id] = path
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, other in zip(target.elts, value.elts, strict=False):
                self._assign(one, other, scope)

    def _path(self, node: ast.expr, scope: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
        """Return how an expression was reached: classes, with lower-case keys between them."""
        if isinstance(node, ast.Name):
            return scope.get(node.id, ())
        if isinstance(node, ast.Attribute):
            path = self._path(node.value, scope)
            known = self.classes.get(path[-1]) if path else None
            if known is None:
                return ()
            kind = known.fields.get(node.attr) or known.returns.get(node.attr, "")
            if kind not in self.classes:
                return ()
            return (*path, node.attr, kind) if known.is_section else (kind,)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                if node.func.attr == "model_copy":
                    return self._path(node.func.value, scope)
                path = self._path(node.func.value, scope)
                known = self.classes.get(path[-1]) if path else None
                kind = known.returns.get(node.func.attr, "") if known else ""
                return (kind,) if kind in self.classes else ()
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name in self.classes:
                return (name,)
            kinds = {_simple(f.node.returns) for f in self.by_name.get(name, [])}
            kinds &= set(self.classes)
            return (kinds.pop(),) if len(kinds) == 1 else ()
        if isinstance(node, ast.IfExp):
            return self._path(node.body, scope) or self._path(node.orelse, scope)
        if isinstance(node, ast.BoolOp):
            return next((p for value in node.values if (p := self._path(value, scope))), ())
        return ()
