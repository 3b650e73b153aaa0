"""What is fuzzed, and what must hold: rows of a manifest, parameters, the normaliser.

A target takes bytes, makes an input of them and raises `AssertionError` where a promise is
broken; any other exception is a failure too. It returns what became of the input: `accepted` or
`refused`. `tests/hostile/test_fuzz.py` runs the same targets for a moment in every test run,
`tests/fuzz/run.py` for a million inputs.
"""

from __future__ import annotations

import copy
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import yaml

from voxadapt.asr.normalise import characters, is_unspaced, metric_for, normalise
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.params import Params, check_params, load_params
from voxadapt.data.manifest import read_raw_manifest
from voxadapt.data.text import fold_text, is_speakable

PROFILE = Path(__file__).parents[2] / "profiles" / "miniature.yaml"
LANGUAGES = (None, "en", "tr", "az", "zh", "yue", "th", "ms")
WORDS = (
    "", " ", "a", "A sentence.", "a.wav", "b.flac", "ref.wav", "no.wav", "../a.wav", "/etc/passwd",
    "link.wav", "dangling.wav", "folder.wav", "text.wav", "~/a.wav", "C:/a.wav", "sub\\a.wav",
    "https://example.org/a.wav", "data:audio/wav;base64,UklGRg==", "file:///a", "a\0b",
    "\u202eevil", "\ufeff", "\ud800", "\u0640", "\u02bc", "\u064b\u064c", "\U0001f600", "e\u0301",
    "\u0130I\u0131i", "\u05d0\"\u05d1", "don't", "2e-5", "2.0e-5", "010", "1:30", "true", "null",
    "nan", ".inf", "-1", "0", "en", "malay", "base", "epoch-1", "epoch-0", "auto", "cpu",
    "<script>alert(1)</script>", "{{ 7*7 }}", "%s%n", "\r\n", "\u2028", "\x1b[31m",
    "\ufdfa", "\u1100\u1161\u11a8", "\u0e01\u0e33", "\u4e00\u842c", "1\u0660\u0967\u00b2",
)  # fmt: skip
LONG = ("word " * 500, "x/" * 600, "1" * 400, "\ufdfa" * 40, "a\u0301" * 300)
NUMBERS = (
    0, 1, -1, 2, 8, 10**6, 2**31, 2**63, 10**400, 0.0, -0.0, 0.5, 1.0, 1e-300, 1e300,
    math.inf, -math.inf, math.nan, True, False, None,
)  # fmt: skip
KEYS = ("audio", "text", "ref_audio", "language", "consent", "Text", "text ", "", "speaker", "\0")


class Source:
    """Reads choices off bytes, small numbers when they are used up.

    Args:
        data: What the fuzzer made.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def byte(self) -> int:
        """Return the next byte."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else self._at % 7

    def below(self, limit: int) -> int:
        """Return a number from 0 to below `limit`."""
        value = self.byte()
        return (value << 8 | self.byte()) % limit if limit > 256 else value % limit

    def pick(self, options: Any) -> Any:
        """Return one of the options."""
        return options[self.below(len(options))]

    def text(self) -> str:
        """Return a text: pieces that are known to be awkward between any characters."""
        parts = []
        for _ in range(self.byte() % 7):
            kind = self.byte() % 4
            if kind == 0:
                parts.append(self.pick(WORDS if self.byte() else LONG))
            elif kind == 1:
                parts += [chr(32 + self.byte() % 95) for _ in range(self.byte() % 8)]
            elif kind == 2:
                parts.append(chr(self.byte() << 8 | self.byte()))
            else:
                parts.append(chr((self.byte() << 16 | self.byte() << 8 | self.byte()) % 0x110000))
        return "".join(parts)

    def value(self, depth: int = 2) -> Any:
        """Return any JSON-like value."""
        kind = self.byte() % 8
        if kind < 3:
            return self.pick(NUMBERS)
        if kind < 6 or depth == 0:
            return self.text()
        items = [self.value(depth - 1) for _ in range(self.byte() % 4)]
        return items if kind == 6 else {self.text(): item for item in items}


def normaliser(data: bytes) -> str:
    """Normalise and fold any text: both are stable, and what can be spoken leaves something."""
    source = Source(data)
    lang = source.pick(LANGUAGES)
    text = source.text()
    norm = normalise(text, lang)
    assert normalise(norm, lang) == norm, "normalising again changes something"
    assert norm == " ".join(norm.split()), "blanks are single, none at an end"
    assert not norm or characters(norm), "a normalised text that is not empty has characters"
    folded = fold_text(text)
    assert fold_text(folded) == folded, "folding again changes something"
    assert norm or not is_speakable(text), "a text that can be spoken vanished"
    assert metric_for(lang, [norm]) in ("wer", "cer")
    assert is_unspaced(norm) in (True, False)
    return "accepted" if norm else "refused"


@cache
def corpus() -> Path:
    """Make a folder with sound and unsound files, once a process."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="voxadapt-fuzz-", dir=memory))
    tone = np.sin(np.arange(8000) / 10.0).astype(np.float32) * 0.3
    for name in ("a.wav", "b.flac", "ref.wav"):
        sf.write(folder / name, tone, 16000)
    (folder / "text.wav").write_text("no audio")
    (folder / "folder.wav").mkdir()
    (folder / "link.wav").symlink_to("/etc/hostname")
    (folder / "dangling.wav").symlink_to(folder / "nowhere.wav")
    return folder


def manifest(data: bytes) -> str:
    """Read a manifest of one or two rows: each line becomes a row or problems that help."""
    source = Source(data)
    lines = [_line(source) for _ in range(1 + source.byte() % 2)]
    end = source.pick((b"\n", b"\r\n", b"\n\n", b"\r", b""))
    content = source.pick((b"", b"", b"", b"\xef\xbb\xbf", b"\xff\xfe")) + end.join(lines) + end
    path = corpus() / f"rows-{os.getpid()}.jsonl"
    path.write_bytes(content)
    rows, problems = read_raw_manifest(path)
    check_problems(problems)
    assert rows or problems, "something is always said"
    root = os.path.realpath(corpus()) + os.sep
    for row in rows:
        for file in (row.audio_path, row.ref_path):
            assert os.path.realpath(file).startswith(root), f"{file} lies outside"
        for lang in ("en", "tr"):
            assert normalise(row.text, lang), "an accepted text can be scored"
        row.text.encode()
        assert row.id and "/" not in row.id and len(row.id) <= 120
    assert len({row.id for row in rows}) == len(rows), "ids are unique"
    return "accepted" if rows and not problems else "refused"


def _line(source: Source) -> bytes:
    row: Any = {"audio": source.pick(("a.wav", "b.flac")), "text": "A sentence.",
                "ref_audio": "ref.wav"}  # fmt: skip
    for _ in range(source.byte() % 4):
        change = source.byte() % 6
        if change == 0:
            row.pop(source.pick(KEYS), None)
        elif change == 1:
            row[source.pick(KEYS)] = source.value()
        else:
            row[source.pick(KEYS[:5])] = source.text()
    shape = source.byte() % 16
    row = [row] if shape == 0 else source.value() if shape == 1 else row
    line = json.dumps(row, ensure_ascii=source.byte() % 2 == 0).encode("utf-8", "surrogatepass")
    for _ in range(source.byte() % 3 if source.byte() % 3 == 0 else 0):
        at = source.below(len(line) + 1)
        line = line[:at] + bytes([source.byte()]) * (source.byte() % 3) + line[at + 1 :]
    return line


@cache
def _profile() -> tuple[dict[str, Any], list[tuple[str, ...]], list[str]]:
    text = PROFILE.read_text(encoding="utf-8")
    values = yaml.safe_load(text)

    def leaves(tree: dict[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for key, value in tree.items():
            yield (*above, key)
            if isinstance(value, dict):
                yield from leaves(value, (*above, key))

    return values, list(leaves(values, ())), text.splitlines(keepends=True)[:22]


def params(data: bytes) -> str:
    """Read changed parameters: they are taken as they are written, or refused by name."""
    source = Source(data)
    try:
        if source.byte() % 16 == 0:
            path = corpus() / f"params-{os.getpid()}.yaml"
            path.write_bytes(_yaml(source))
            found = load_params(path)
        else:
            found = check_params(_values(source), "params.yaml")
    except UserError as error:
        check_problems(error.problems)
        return "refused"
    dumped = found.model_dump(mode="json")
    text = json.dumps(dumped, allow_nan=False)
    text.encode()
    assert Params.model_validate(json.loads(text)) == found, "what was read can be read again"
    return "accepted"


def _values(source: Source) -> dict[str, Any]:
    values, leaves, _ = _profile()
    changed = copy.deepcopy(values)
    for _ in range(1 + source.byte() % 3):
        *above, last = source.pick(leaves)
        section: Any = changed
        for name in above:
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            continue
        change = source.byte() % 5
        if change == 0:
            section.pop(last, None)
        elif change == 1:
            section[source.text()] = source.value()
        else:
            section[last] = source.value()
    return changed


def _yaml(source: Source) -> bytes:
    lines = list(_profile()[2])
    for _ in range(1 + source.byte() % 3):
        at = source.below(len(lines))
        awkward = ("&a [*a]", "&a {b: *a}", "!!python/object:os.system x", "!!timestamp noon",
                   "!!int ''", "0x_", "2024-13-45", "? [a]", "- - - -", "'", "*x", "%TAG ! x",
                   "!!binary ?", "<<: {a: 1}", "1e999", "\"\\ud800\"", "[" * 60)  # fmt: skip
        head = lines[at].partition(":")[0]
        lines[at] = f"{head}: {source.pick(awkward) if source.byte() % 2 else source.text()}\n"
    return "".join(lines).encode("utf-8", "surrogatepass")


def check_problems(problems: Any) -> None:
    """Check that every problem says where, what was expected and found, and what to do."""
    for problem in problems:
        assert isinstance(problem, Problem)
        assert problem.where and problem.expected and problem.found and problem.fix, problem
        line = str(problem)
        assert line.isprintable(), f"unprintable: {line!a}"
        assert len(line) <= 2000, f"a message of {len(line)} characters"


TARGETS: dict[str, Callable[[bytes], str]] = {
    "manifest": manifest,
    "params": params,
    "normaliser": normaliser,
}
