"""YAML that a user wrote: plain values, no key twice, no surprises of the format."""

import re
from collections.abc import Hashable
from pathlib import Path

import yaml

MAX_YAML_BYTES = 1_000_000
MAX_YAML_NODES = 100_000  # with every alias written out
MAX_YAML_DEPTH = 50
# 010 is 8 to YAML, and 1:30 is 90.
_OTHER_BASE = re.compile(r"[-+]?0[0-9_]+|[-+]?[0-9][0-9_]*(:.*)+")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """A safe loader that refuses a key given twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
    found: set[object] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            continue  # refused by the safe loader below
        if key in found:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is given twice", node.start_mark
            )
        found.add(key)
    mapping: dict[object, object] = yaml.SafeLoader.construct_mapping(loader, node, deep)
    return mapping


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: str | Path) -> object:
    """Read a YAML file that a user wrote.

    Raises:
        FileNotFoundError: When it is not there.
        ValueError: When it cannot be read; the message says why. That is also so for more than a
            megabyte, for aliases that unfold to more than any such file holds, and for numbers
            that YAML would read in another base.
    """
    with open(path, "rb") as stream:
        data = stream.read(MAX_YAML_BYTES + 1)
    if len(data) > MAX_YAML_BYTES:
        raise ValueError(f"more than {MAX_YAML_BYTES} bytes")
    try:
        loader = _Loader(data.decode("utf-8-sig"))
        root = loader.get_single_node()
        if root is None:
            return None
        _measure(root, {})
        return loader.construct_document(root)
    except RecursionError:
        raise ValueError(f"lists or sections nested more than {MAX_YAML_DEPTH} deep") from None
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        # The last four: a value that does not fit its tag, such as !!timestamp noon.
        raise ValueError(on_one_line(str(error)) or type(error).__name__) from None


def _measure(node: yaml.Node, known: dict[int, tuple[int, int]], depth: int = 0) -> tuple[int, int]:
    """Return a node's values and depth with every alias written out, or refuse it."""
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node)
        return 1, 0
    if id(node) not in known:
        if depth > MAX_YAML_DEPTH:  # also an alias of what it stands in
            raise ValueError(f"lists or sections nested more than {MAX_YAML_DEPTH} deep")
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        inner = [_measure(part, known, depth + 1) for part in parts]
        known[id(node)] = 1 + sum(n for n, _ in inner), 1 + max((d for _, d in inner), default=0)
    size, height = known[id(node)]
    if size > MAX_YAML_NODES:
        raise ValueError(f"aliases that unfold to more than {MAX_YAML_NODES} values")
    if height > MAX_YAML_DEPTH:
        raise ValueError(f"lists or sections nested more than {MAX_YAML_DEPTH} deep")
    return size, height


def _check_scalar(node: yaml.ScalarNode) -> None:
    """Refuse what is no text, and numbers that YAML reads in a base of its own."""
    line = f"in line {node.start_mark.line + 1}"
    for character in node.value:
        if 0xD800 <= ord(character) <= 0xDFFF:
            raise ValueError(f"a lone surrogate (U+{ord(character):04X}) {line}")
    if node.tag.endswith((":int", ":float")) and _OTHER_BASE.fullmatch(node.value):
        raise ValueError(
            f"the number {node.value[:20]} {line}; write it without leading 0 or colon"
        )


def on_one_line(text: str) -> str:
    """Put a text on one line, with escapes for what does not print."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
