"""Hostile audio files and manifest lines: each is refused by file and line, or counted.

Every case goes through the reader and the whole audit, beside rows without fault. Nothing but a
`UserError` may leave it, and what is accepted must be there with the number that is right.
"""

from __future__ import annotations

import base64
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from corpus import sentence, speech_like, write_clip, write_rows
from voxadapt.core.errors import UserError
from voxadapt.core.params import AuditParams, SplitParams
from voxadapt.data.audit import AuditResult, audit_corpus
from voxadapt.data.lines import MAX_LINE_BYTES
from voxadapt.data.manifest import read_raw_manifest
from voxadapt.data.splits import assign_split
from voxadapt.data.text import fold_text

AUDIT = AuditParams(min_total_minutes=0.01, recommended_total_minutes=(0.01, 10.0), on_error="stop")
SPLIT = SplitParams(selection_share=0.3, confirmation_share=0.3)
TEXT = "The harbor and the lantern are old."
REPAIRED = "repaired"  # accepted, with a warning of this rule that the audit counts
REFUSED = "refused"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sound clips, links, and one text for every split."""
    root = tmp_path_factory.mktemp("hostile")
    write_clip(root / "ref.wav", 3.2, seed=99)
    write_clip(root / "case.wav", 1.6, seed=50)
    write_clip(root.parent / "outside.wav", 1.6)
    (root / "link.wav").symlink_to(root.parent / "outside.wav")
    (root / "linked").symlink_to(root.parent)
    (root / "loop.wav").symlink_to(root / "loop.wav")
    (root / "dangling.wav").symlink_to(root / "nowhere.wav")
    (root / "folder.wav").mkdir()
    os.mkfifo(root / "pipe.wav")
    return root


@pytest.fixture(scope="module")
def sound_rows(folder: Path) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for number in range(200):
        split = assign_split(fold_text(sentence(number)), SPLIT)
        if split not in found:
            name = f"sound-{split}.wav"
            write_clip(folder / name, 1.6, seed=number)
            found[split] = {"audio": name, "text": sentence(number), "ref_audio": "ref.wav"}
    return list(found.values())


def run(folder: Path, lines: bytes, sound_rows: list[dict[str, Any]]) -> AuditResult:
    """Audit three sound rows after the hostile lines."""
    path = folder / "rows.jsonl"
    path.write_bytes(lines + b"".join(json.dumps(row).encode() + b"\n" for row in sound_rows))
    rows, problems = read_raw_manifest(path)
    return audit_corpus(rows, AUDIT, SPLIT, path, problems)


def refused(folder: Path, lines: bytes, sound_rows: list[dict[str, Any]]) -> str:
    """Return the problems of the first line, which must be the only ones."""
    with pytest.raises(UserError) as caught:
        run(folder, lines, sound_rows)
    for problem in caught.value.problems:
        assert problem.where == "rows.jsonl:1", f"names file and line: {problem}"
        assert problem.expected and problem.found and problem.fix
        assert str(problem).isprintable()
    return "\n".join(map(str, caught.value.problems))


# --- audio -------------------------------------------------------------------------------------


def tone(seconds: float = 1.6, hz: int = 16000) -> np.ndarray:
    return speech_like(seconds, hz, seed=7)


def wav_bytes(samples: np.ndarray, hz: int = 16000) -> bytes:
    """A canonical 44 byte header and 16-bit samples."""
    data = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, 1,
                       hz, 2 * hz, 2, 16, b"data", len(data))  # fmt: skip
    return head + data


def field(at: int, value: bytes) -> Callable[[Path], None]:
    """A sound file with some bytes of its header replaced."""

    def write(path: Path) -> None:
        content = bytearray(wav_bytes(tone()))
        content[at : at + len(value)] = value
        path.write_bytes(bytes(content))

    return write


def samples(values: Callable[[], np.ndarray], hz: int = 16000, **options: Any) -> Any:
    def write(path: Path) -> None:
        sf.write(path, values(), hz, format=options.pop("format", "WAV"), **options)

    return write


def content(data: Callable[[], bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data())

    return write


def with_value(value: float, share: float = 0.01) -> Callable[[], np.ndarray]:
    def make() -> np.ndarray:
        found = tone()
        found[: max(1, int(share * len(found)))] = value
        return found

    return make


def sparse_two_hours(path: Path) -> None:
    """A true header of two hours over a sparse file: all of it could be read."""
    hz, seconds = 16000, 7200
    size = 2 * hz * seconds
    head = bytearray(wav_bytes(np.zeros(0)))
    struct.pack_into("<I", head, 4, 36 + size)
    struct.pack_into("<I", head, 40, size)
    path.write_bytes(bytes(head))
    os.truncate(path, 44 + size)


def cut_flac(path: Path) -> None:
    sf.write(path, tone(), 16000, format="FLAC")
    path.write_bytes(path.read_bytes()[:-8000])


def flac_bomb(path: Path) -> None:
    """A few kilobytes that unfold to gigabytes: the header's length is a lie, or it is not."""
    sf.write(path, np.zeros((16000, 8), np.float32), 655350, format="FLAC")
    data = bytearray(path.read_bytes())
    total = 655350 * 39  # within the longest duration
    data[21] = (data[21] & 0xF0) | (total >> 32)
    data[22:26] = (total & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(bytes(data))


AUDIO: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "empty file": (content(lambda: b""), REFUSED, "0 bytes"),
    "text": (content(lambda: b"no sound at all " * 50), REFUSED, "no readable audio"),
    "random bytes": (content(lambda: bytes(range(256)) * 20), REFUSED, "readable"),
    "html": (content(lambda: b"<!doctype html><script>alert(1)</script>"), REFUSED, "readable"),
    "png": (content(lambda: b"\x89PNG\r\n\x1a\n" + bytes(400)), REFUSED, "readable"),
    "half a header": (content(lambda: wav_bytes(tone())[:30]), REFUSED, "readable"),
    "header only": (content(lambda: wav_bytes(np.zeros(0))), REFUSED, "without samples"),
    "truncated": (content(lambda: wav_bytes(tone())[:-9000]), REFUSED, "fewer bytes"),
    "0 Hz": (field(24, bytes(4)), REFUSED, "audio that can be read"),
    "4 GHz": (field(24, b"\xff" * 4), REFUSED, "readable"),
    "0 channels": (field(22, bytes(2)), REFUSED, "readable"),
    "65,535 channels": (field(22, b"\xff\xff"), REFUSED, "readable"),
    "0 bits": (field(34, bytes(2)), REFUSED, "readable"),
    "unknown coding": (field(20, b"\x99\x99"), REFUSED, "readable"),
    "data of another length": (field(40, b"\xf0\xff\xff\x7f"), "accepted", ""),
    "FLAC cut off": (cut_flac, REFUSED, "audio that can be read"),
    "two headers": (content(lambda: wav_bytes(tone())[:44] * 2), REFUSED, "more than 1 s"),
    "NaN samples": (samples(with_value(np.nan), subtype="FLOAT"), REFUSED, "NaN"),
    "infinite samples": (samples(with_value(np.inf), subtype="FLOAT"), REFUSED, "infinite"),
    "one NaN": (samples(with_value(np.nan, 0.0), subtype="FLOAT"), REFUSED, "1 NaN"),
    "only NaN": (samples(with_value(np.nan, 1.0), subtype="DOUBLE"), REFUSED, "NaN"),
    "1 sample": (samples(lambda: tone()[:1]), REFUSED, "more than 1 s"),
    "1 ms": (samples(lambda: tone()[:16]), REFUSED, "more than 1 s"),
    "2 hours": (sparse_two_hours, REFUSED, "7200.0 s"),
    "45 seconds": (samples(lambda: tone(45, 8000), 16000 // 2), REFUSED, "at most 20 s"),
    "FLAC that unfolds": (flac_bomb, REFUSED, "samples in all channels"),
    "8 channels": (samples(lambda: np.repeat(tone()[:, None], 8, 1)), REFUSED, "8 channels"),
    "8 kHz": (samples(lambda: tone(1.6, 8000), 8000), REFUSED, "8000 Hz"),
    "1 Hz": (samples(lambda: tone()[:20], 1), REFUSED, "1 Hz"),
    "silence": (samples(lambda: np.zeros(25600, np.float32)), REFUSED, "of speech"),
    "direct current": (samples(lambda: np.full(25600, 0.5, np.float32)), REFUSED, "of speech"),
    "one click": (samples(lambda: np.eye(1, 25600, 9000)[0] * 0.9), REFUSED, "of speech"),
    "all at full scale": (samples(lambda: np.sign(tone())), REPAIRED, "clipping"),
    "offset": (samples(lambda: tone() * 0.5 + 0.3), REPAIRED, "dc_offset"),
    "noise": (samples(lambda: np.random.default_rng(0).normal(0, 0.1, 25600)), REPAIRED, "noise"),
    "clipped": (samples(lambda: np.clip(tone() * 9, -1, 1)), REPAIRED, "clipping"),
    "192 kHz": (samples(lambda: tone(1.6, 192000), 192000), "accepted", ""),
    "stereo": (samples(lambda: np.repeat(tone()[:, None], 2, 1)), REPAIRED, "channels"),
    "one channel upside down": (
        samples(lambda: np.stack([tone(), -0.9 * tone()], 1)), REFUSED, "cancel each other"),
    "one channel silent": (
        samples(lambda: np.stack([tone(), 0 * tone()], 1)), REPAIRED, "channels"),
    "integers as floats": (samples(lambda: tone() * 32767, subtype="FLOAT"), REFUSED, "a peak of"),
    "25 seconds": (samples(lambda: tone(25)), REPAIRED, "too_long"),
    "FLAC called WAV": (samples(tone, format="FLAC"), REPAIRED, "extension"),
    "Ogg called WAV": (samples(tone, format="OGG"), REPAIRED, "extension"),
    "RIFF size 0": (field(4, bytes(4)), "accepted", ""),
    "24 bits": (samples(tone, subtype="PCM_24"), "accepted", ""),
    "32 bits": (samples(tone, subtype="FLOAT"), "accepted", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", AUDIO)
def test_audio(folder: Path, sound_rows: list[dict[str, Any]], name: str) -> None:
    write, outcome, message = AUDIO[name]
    path = folder / "hostile.wav"
    path.unlink(missing_ok=True)
    write(path)
    line = json.dumps({"audio": path.name, "text": TEXT, "ref_audio": "ref.wav"}).encode() + b"\n"
    if outcome == REFUSED:
        assert message in refused(folder, line, sound_rows)
        return
    result = run(folder, line, sound_rows)
    clip = next(clip for clip in result.clips if clip.row.audio == path.name)
    assert clip.info is not None and clip.measured is not None
    assert result.metrics["num_accepted"] == 1 + len(sound_rows)
    assert np.isfinite(list(clip.measured.as_dict().values())).all()
    rules = {finding.rule for finding in clip.findings}
    if outcome == REPAIRED:
        assert any(message in rule for rule in rules), rules
        assert all(result.metrics["warnings_by_rule"][rule] for rule in rules)
    else:
        assert rules <= {"low_snr"}, rules


def test_a_hostile_reference_is_named(folder: Path, sound_rows: list[dict[str, Any]]) -> None:
    rows = [row | {"ref_audio": "bad.wav"} for row in sound_rows]
    for write, message in (
        (sparse_two_hours, "a reference of 3 to 10 s"),
        (samples(lambda: np.zeros(16000 * 4)), "in the reference bad.wav"),
        (samples(with_value(np.nan), subtype="FLOAT"), "bad.wav"),
    ):
        write(folder / "bad.wav")
        write_rows(folder / "rows.jsonl", list(rows))
        found, problems = read_raw_manifest(folder / "rows.jsonl")
        with pytest.raises(UserError, match=r"bad\.wav") as caught:
            audit_corpus(found, AUDIT, SPLIT, folder / "rows.jsonl", problems)
        assert message in str(caught.value)


# --- lines of the manifest ---------------------------------------------------------------------

ROW = {"audio": "case.wav", "text": TEXT, "ref_audio": "ref.wav"}


def row(**change: Any) -> bytes:
    return json.dumps(ROW | change).encode() + b"\n"


def without(key: str) -> bytes:
    return json.dumps({k: v for k, v in ROW.items() if k != key}).encode() + b"\n"


SOUND_BASE64 = base64.b64encode(bytes(900)).decode()
LINES: dict[str, tuple[bytes, str]] = {
    "UTF-16": (json.dumps(ROW).encode("utf-16") + b"\n", "UTF-16"),
    "Latin-1": (b'{"audio": "caf\xe9.wav"}\n', "byte 0xe9 at column 15"),
    "NUL bytes": (bytes(200) + b"\n", "invalid JSON"),
    "duplicate keys": (b'{"audio": "a.wav", "audio": "b.wav"}\n', "'audio' twice"),
    "duplicate inner keys": (b'{"audio": {"a": 1, "a": 2}}\n', "'a' twice"),
    "nested 20 deep": (row(text=json.loads("[" * 20 + "]" * 20)), "text as a string"),
    "nested 900 deep": (b"[" * 900 + b"]" * 900 + b"\n", "deeply nested"),
    "nested 100,000 deep": (b"[" * 100_000 + b"]" * 100_000 + b"\n", "deeply nested"),
    "10 MB line": (row(text="x" * 10_000_000), f"at most {MAX_LINE_BYTES} bytes"),
    "no JSON": (b"audio,text,ref_audio\n", "invalid JSON"),
    "half an object": (b'{"audio": "case.wav", "te\n', "invalid JSON"),
    "two objects": (b'{"audio": "a.wav"} {"audio": "b.wav"}\n', "invalid JSON"),
    "list": (b'["case.wav", "text", "ref.wav"]\n', "found list"),
    "number": (b"1e999\n", "found float"),
    "NaN": (b"NaN\n", "found float"),
    "5,000 digits": (b"9" * 5000 + b"\n", "invalid JSON"),
    "empty object": (b"{}\n", "a key audio"),
    "no audio": (without("audio"), "a key audio"),
    "no text": (without("text"), "a key text"),
    "no reference": (without("ref_audio"), "a key ref_audio"),
    "extra field": (row(mood="x"), "unknown key 'mood'"),
    "misspelt field": (row(Text="x"), "unknown key 'Text'"),
    "control in a key": (row(**{"a\u202eb": 1}), "unknown key"),
    "text as a number": (row(text=5), "int 5"),
    "text as a list": (row(text=["a"]), "list"),
    "text null": (row(text=None), "NoneType"),
    "audio true": (row(audio=True), "bool True"),
    "consent empty": (row(consent=" "), "consent in 1 to 200 printable characters"),
    "consent with controls": (row(consent="yes\u0007"), "consent in 1 to 200"),
    "consent as a number": (row(consent=1), "consent as a string"),
    "consent too long": (row(consent="y" * 201), "consent in 1 to 200"),
    "language with markup": (row(language="<b>"), "a language name"),
    "absolute path": (row(audio="/etc/passwd"), "the absolute path"),
    "absolute path of the clip": (row(audio="/proc/self/environ"), "the absolute path"),
    "home": (row(audio="~/.ssh/id_rsa"), "the absolute path"),
    "Windows drive": (row(audio="C:\\a.wav"), "the absolute path"),
    "network share": (row(audio="\\\\host\\share\\a.wav"), "the absolute path"),
    "parent": (row(audio="../outside.wav"), "leaves the folder"),
    "parent inside": (row(audio="a/../../outside.wav"), "leaves the folder"),
    "encoded parent": (row(audio="..%2foutside.wav"), "no file"),
    "link out of the folder": (row(audio="link.wav"), "a link that leaves the folder"),
    "linked folder": (row(audio="linked/outside.wav"), "a link that leaves the folder"),
    "link to itself": (row(audio="loop.wav"), "audio: "),
    "link to nothing": (row(audio="dangling.wav"), "a link to nothing"),
    "folder": (row(audio="folder.wav"), "which is none"),
    "pipe": (row(audio="pipe.wav"), "which is none"),
    "device": (row(ref_audio="/dev/zero"), "the absolute path"),
    "address": (row(audio="https://example.org/a.wav"), "the address"),
    "bucket": (row(audio="s3://bucket/a.wav"), "the address"),
    "file address": (row(audio="file:///etc/passwd"), "the address"),
    "data URI": (row(audio="data:audio/wav;base64," + SOUND_BASE64), "base64"),
    "base64": (row(audio=SOUND_BASE64), "base64"),
    "NUL in a path": (row(audio="case.wav\0.txt"), "cannot exist"),
    "surrogate in a path": (row(audio="\udcff.wav"), "cannot exist"),
    "path of 5,000 characters": (row(audio="a./" * 2000), "cannot exist"),
    "name of 300 characters": (row(audio="a" * 300), "audio: "),
    "command": (row(audio="$(reboot).wav"), "no file"),
    "option": (row(audio="-rf"), "no file"),
    "empty path": (row(audio=""), "an empty path"),
    "dot": (row(audio="."), "which is none"),
    "reference of nothing": (row(ref_audio="no.wav"), "ref_audio: an existing file"),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_line(folder: Path, sound_rows: list[dict[str, Any]], name: str) -> None:
    line, message = LINES[name]
    if name == "UTF-16":  # nothing after it can be read
        sound_rows = []
    assert message in refused(folder, line, sound_rows)


REPAIRS: dict[str, tuple[bytes, str]] = {
    "byte order mark": (b"\xef\xbb\xbf" + row(), "byte order mark"),
    "Windows line ends": (row()[:-1] + b"\r\n", "Windows line ends"),
    "blank lines": (b"\n\n" + row() + b"\n", "blank lines"),
}


@pytest.mark.parametrize("name", REPAIRS)
def test_repaired_line_is_counted(
    folder: Path, sound_rows: list[dict[str, Any]], name: str
) -> None:
    line, note = REPAIRS[name]
    result = run(folder, line, sound_rows)
    assert result.metrics["num_accepted"] == 1 + len(sound_rows)
    assert result.metrics["warnings_by_rule"]["format"] == 1
    assert any(note in finding.found for finding in result.clips[0].findings)


def test_consent_is_counted_and_never_asked_for(
    folder: Path, sound_rows: list[dict[str, Any]]
) -> None:
    words = "written consent 2026-01-03, held by the studio"
    result = run(folder, row(consent=words), sound_rows)
    assert result.metrics["consent"] == {"num_rows": 1, "statements": {words: 1}}
    assert [clip.as_dict().get("consent") for clip in result.clips] == [words, None, None, None]
    without_any = run(folder, row(), sound_rows)
    assert without_any.metrics["consent"] == {"num_rows": 0, "statements": {}}
    assert without_any.metrics["num_warnings"] == result.metrics["num_warnings"]
