"""The mutation benchmark: which tokens it changes, and which tests it takes for a module's own."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.mutants import EQUIVALENT, drawn, mirrors, mutants_of, passes

SOURCE = '''"""Text with 1 < 2 and 3 + 4."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    size: int | None = 3

    def grown(self, *parts: int, by: float = 0.5) -> int | None:
        if self.size is not None and by <= 1:
            return max(self.size - 2, 0) * sum(parts)
        for part in zip(parts, parts, strict=True):
            print("a" + "b", *part, -1)
        return None if not parts or 3 not in parts else 4
'''


def project(root: Path) -> Path:
    for name, text in {
        "src/voxadapt/data/thing.py": SOURCE,
        "src/voxadapt/data/other.py": "HALF = 1 / 2\n",
        "tests/data/test_thing.py": "",
        "tests/data/test_thing_more.py": "",
        "tests/data/test_things.py": "from voxadapt.data.other import HALF\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_every_operator_and_number_is_changed_and_nothing_else(tmp_path: Path) -> None:
    root = project(tmp_path)
    found = [m for m in mutants_of(root, "src/voxadapt/data/thing.py") if m.parses(root)]
    assert [(m.line, m.token, m.after.strip()) for m in found] == [
        (8, "3", "size: int | None = 4"),
        (10, "0.5", "def grown(self, *parts: int, by: float = 1.0) -> int | None:"),
        (11, "not", "if self.size is  None and by <= 1:"),
        (11, "and", "if self.size is not None or by <= 1:"),
        (11, "<=", "if self.size is not None and by < 1:"),
        (11, "<=", "if self.size is not None and by >= 1:"),
        (11, "1", "if self.size is not None and by <= 2:"),
        (12, "max", "return min(self.size - 2, 0) * sum(parts)"),
        (12, "-", "return max(self.size + 2, 0) * sum(parts)"),
        (12, "2", "return max(self.size - 3, 0) * sum(parts)"),
        (12, "0", "return max(self.size - 2, 1) * sum(parts)"),
        (12, "*", "return max(self.size - 2, 0) / sum(parts)"),
        (14, "-", 'print("a" + "b", *part, +1)'),
        (14, "1", 'print("a" + "b", *part, -2)'),
        (15, "not", "return None if  parts or 3 not in parts else 4"),
        (15, "or", "return None if not parts and 3 not in parts else 4"),
        (15, "3", "return None if not parts or 4 not in parts else 4"),
        (15, "not", "return None if not parts or 3  in parts else 4"),
        (15, "4", "return None if not parts or 3 not in parts else 5"),
    ]


def test_a_draw_is_of_the_seed_and_a_mutant_is_put_back(tmp_path: Path) -> None:
    root = project(tmp_path)
    sample = drawn(root, 1, 5)
    assert sample == drawn(root, 1, 9)[:5] != drawn(root, 2, 5)
    seen = []
    mutant = sample[0]
    path = root / mutant.file
    before = path.read_text(), path.stat().st_mtime_ns
    assert passes(root, mutant, lambda: seen.append(path.read_text()) is None)
    assert seen == [mutant.source(root)] and seen[0] != before[0]
    assert (path.read_text(), path.stat().st_mtime_ns) == before


def test_a_module_has_the_tests_of_its_name_or_those_that_import_it(tmp_path: Path) -> None:
    root = project(tmp_path)
    assert mirrors(root, "src/voxadapt/data/thing.py") == [
        "tests/data/test_thing.py", "tests/data/test_thing_more.py",
    ]  # fmt: skip
    assert mirrors(root, "src/voxadapt/data/other.py") == ["tests/data/test_things.py"]
    assert mirrors(root, "src/voxadapt/data/lost.py") == []


def test_what_is_called_equivalent_is_in_the_code() -> None:
    """A line that has changed is looked at again."""
    root = Path(__file__).parents[2]
    for line in EQUIVALENT.read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        of_file = {mutant.what for mutant in mutants_of(root, item["file"])}
        assert (item["file"], item["before"], item["after"]) in of_file and item["why"], item
