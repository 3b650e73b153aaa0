"""Texts of a new language: the user's JSONL, read strictly, and the lines accepted by the audit.

There is no audio here, so the rules concern what is written: its script, its length, what the
model's tokenizer and the respelling map know, and that no sentence is learnt that is also scored.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from voxadapt.core.errors import Problem, UserError, raise_problems
from voxadapt.core.files import write_json, write_jsonl
from voxadapt.core.problems import problem, user_error
from voxadapt.core.provenance import fingerprint
from voxadapt.core.records import Record
from voxadapt.data.findings import Finding, named
from voxadapt.data.lines import json_objects, shown
from voxadapt.data.manifest import check_text, divide_errors
from voxadapt.data.respelling import Respelling
from voxadapt.data.text import (
    dominant_script,
    fold_text,
    has_digit,
    has_markup,
    odd_characters,
    script_of,
)

RECOMMENDED_TEXTS = 100  # fewer leave most words of a language unseen

_SHAPE = '{"text": "…"}'


@dataclass(frozen=True, slots=True)
class TextLine:
    """One line of text."""

    id: str  # name by line number, such as text0012
    text: str  # as written
    where: str = ""  # file and line, for messages; empty where the text was read from a record


@dataclass(frozen=True, slots=True)
class TextAudit:
    """Audited texts without errors."""

    accepted: tuple[TextLine, ...]  # in file order; every folded text once, none that is scored
    #: Warnings with their line; None stands for the file.
    findings: tuple[tuple[TextLine | None, Finding], ...]
    #: Respelling of each accepted line by its id; empty without a map.
    respelt: Mapping[str, str] = field(default_factory=dict)
    metrics: Record = field(default_factory=dict)  # counts and medians, for `texts.json`

    @property
    def sentence(self) -> str:
        """The outcome in one sentence."""
        n, warnings = self.metrics, len(self.findings)
        left = [
            f"{count} {why}"
            for count, why in (
                (n.get("num_dropped", 0), "with errors"),
                (n["num_duplicates"], "repeated"),
                (n["num_held_out"], "kept for scoring"),
            )
            if count
        ]
        without = f" ({', '.join(left)}: left out)" if left else ""
        return (
            f"{n['num_accepted']} of {n['num_lines']} texts accepted{without}, "
            f"{warnings} warning{'' if warnings == 1 else 's'}."
        )


def read_texts(
    path: str | Path, *, any_field: bool = False, refused: list[Problem] | None = None
) -> list[TextLine]:
    """Read a JSONL of texts.

    One `{"text": "…"}` a line; `any_field` accepts other keys, as a manifest has them. `refused`
    takes what is wrong with single lines, which are left out then; without it they are an error.

    Raises:
        UserError: With one problem for each line that cannot be used.
    """
    path = Path(path)
    fix = "Check the path in params.yaml (language.text, language.source.text)."
    lines: list[TextLine] = []
    problems: list[Problem] = []
    for number, where, values in json_objects(path, _SHAPE, problems, fix=fix):
        found = _row_problems(where, values, any_field)
        problems += found
        if not found:
            lines.append(TextLine(f"text{number:04d}", values["text"], where))
    if not lines and not problems:
        problems.append(problem("data.no_texts", path, shape=_SHAPE))
    if refused is not None and lines:
        refused += problems
    else:
        raise_problems(problems, f"{path} cannot be used.")
    return lines


def _row_problems(where: str, values: Record, any_field: bool) -> list[Problem]:
    """Check one row."""
    strange = [key for key in values if key != "text" and not any_field]
    problems = [problem("data.text_key", where, key=shown(key)) for key in strange]
    text = values.get("text")
    if "text" not in values:
        problems.append(problem("data.missing_key", where, key="text"))
    elif not isinstance(text, str):
        found = f"{type(text).__name__} {shown(text, 40)}"
        problems.append(problem("data.no_string", where, key="text", found=found))
    else:
        problems += check_text(where, text)
        if has_markup(text):
            problems.append(problem("data.markup", where))
    return problems


def audit_texts(
    lines: Sequence[TextLine],
    *,
    path: str | Path = "language.text",
    script: str | None = None,
    held_out: Collection[str] = frozenset(),
    max_tokens: int | None = None,
    count_tokens: Callable[[str], int] | None = None,
    unknown: Callable[[str], list[str]] | None = None,
    respelling: Respelling | None = None,
    refused: Sequence[Problem] = (),
    on_error: Literal["drop", "stop"] = "stop",
) -> TextAudit:
    """Check texts against every rule, and leave out what is repeated or scored.

    `script` is that of the texts, None: that of most letters; `held_out` are folded texts that
    candidates are scored on; at most `max_tokens`, by `count_tokens`, leave room for speech.
    `unknown` returns what the tokenizer cannot represent in a text; `refused` is what `read_texts`
    says of other lines. Lines with an error are dropped and listed, or stop the audit.

    Raises:
        UserError: With every error, in file order.
    """
    assert lines, "read_texts refuses an empty file"
    assert max_tokens is None or count_tokens is not None, "max_tokens needs count_tokens"
    script = script or dominant_script(line.text for line in lines)
    lengths = {line.id: count_tokens(line.text) if count_tokens else 0 for line in lines}
    findings: list[tuple[TextLine | None, Finding]] = []
    for line in lines:
        found = list(_text_findings(line.text, script))
        if max_tokens is not None and lengths[line.id] > max_tokens:
            found.append(Finding.of("too_long.tokens", lengths[line.id], max_tokens))
        if unknown is not None and (outside := unknown(line.text)):
            found.append(Finding.of("vocabulary", len(outside), 0, found=_shown(outside)))
        if respelling is not None and (strange := respelling.unknown([line.text])):
            facts = {"found": _shown(list(strange)), "language": respelling.language}
            found.append(Finding.of("respelling", len(strange), 0, **facts))
        findings += [(line, finding) for finding in found]
    errors = [
        finding.as_problem(line.where)
        for line, finding in findings
        if line is not None and finding.severity == "error"
    ]
    errors += refused
    dropped, errors = divide_errors(errors, {line.where for line in lines}, on_error)
    if errors:
        count = len({item.where for item in errors})
        have = "1 line has" if count == 1 else f"{count} lines have"
        raise UserError(errors, f"{path} cannot be used as it is: {have} errors.")
    rejected = {item.where for item in dropped}
    lines = [line for line in lines if line.where not in rejected]
    findings = [(line, found) for line, found in findings if line and line.where not in rejected]
    accepted, left_out = _leave_out(lines, frozenset(held_out))
    findings += left_out
    if not accepted:
        raise user_error("data.all_scored", path, count=len(lines))
    if len(accepted) < RECOMMENDED_TEXTS:
        findings.append((None, Finding.of("few_texts", len(accepted), RECOMMENDED_TEXTS)))
    order = {line.id: number for number, line in enumerate(lines)}
    findings.sort(key=lambda item: order[item[0].id] if item[0] else -1)
    tokens = [lengths[line.id] for line in accepted]
    rules = Counter(finding.rule for _, finding in findings)
    folded = [fold_text(line.text).split() for line in accepted]
    metrics = {
        "num_lines": len(lines) + len(rejected),
        "num_accepted": len(accepted),
        "num_duplicates": rules["duplicate_text"],
        "num_held_out": rules["held_out"],
        "num_warnings": len(findings),
        "warnings_by_rule": dict(sorted(rules.items())),
        "file_warnings": [finding.as_dict() for line, finding in findings if line is None],
        "num_words": sum(map(len, folded)),
        "num_distinct_words": len({word for words in folded for word in words}),
        "median_words": float(np.median([len(words) for words in folded])),
        "num_tokens": sum(tokens) if count_tokens else None,
        "longest_tokens": max(tokens) if count_tokens else None,
        "max_tokens": max_tokens,
        "script": script,
        "texts_sha256": fingerprint([line.text for line in accepted], 64),
    }
    if dropped:
        told = [item.as_dict() for item in dropped]
        metrics |= {"num_dropped": len(rejected), "dropped": told}
    respelt = {line.id: respelling.respell(line.text) for line in accepted} if respelling else {}
    return TextAudit(tuple(accepted), tuple(findings), respelt, metrics)


def outside_vocabulary(tokenizer: Any, num_rows: int, text: str) -> list[str]:
    """Return what a tokenizer cannot represent in a text, each once.

    Returns:
        Special tokens spelt out in the text (inference would take them for control), and
        characters whose tokens are unknown, lie beyond the text embedding, or are lost.
    """

    def is_lost(piece: str) -> bool:
        ids = tokenizer(piece)["input_ids"]
        if any(i >= num_rows or i == tokenizer.unk_token_id for i in ids):
            return True
        read = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return unicodedata.normalize("NFC", read) != unicodedata.normalize("NFC", piece)

    added = tokenizer.added_tokens_decoder
    ids = tokenizer(text)["input_ids"]
    found = [tokenizer.decode([i]) for i in ids if i in added and added[i].special]
    if is_lost(text):
        found += [character for character in text if is_lost(character)]
    return list(dict.fromkeys(found))


def write_texts(audit: TextAudit, path: str | Path, metrics: str | Path) -> None:
    """Write the accepted texts, one JSON object a line, and the metrics.

    A line has `id`, `text`, `respelling` (or null) and `findings`.
    """
    by_line: dict[str, list[Record]] = {}
    for line, finding in audit.findings:
        if line is not None:
            by_line.setdefault(line.id, []).append(finding.as_dict())
    rows = (
        {"id": line.id, "text": line.text, "respelling": audit.respelt.get(line.id),
         "findings": by_line.get(line.id, [])}
        for line in audit.accepted
    )  # fmt: skip
    write_jsonl(path, rows)
    write_json(metrics, audit.metrics)


def _leave_out(
    lines: Sequence[TextLine], held_out: frozenset[str]
) -> tuple[list[TextLine], list[tuple[TextLine | None, Finding]]]:
    """Drop texts that are scored and texts that were given before."""
    first: dict[str, TextLine] = {}
    accepted: list[TextLine] = []
    findings: list[tuple[TextLine | None, Finding]] = []
    for line in lines:
        folded = fold_text(line.text)
        same = first.setdefault(folded, line)
        if same is not line:
            number = same.where.rsplit(":", 1)[1]
            findings.append((line, Finding.of("duplicate_text.line", line=number)))
        elif folded in held_out:
            findings.append((line, Finding.of("held_out.text")))
        else:
            accepted.append(line)
    return accepted, findings


def _text_findings(text: str, script: str | None) -> Iterator[Finding]:
    """Check what is written in one line."""
    odd = odd_characters(text, script)
    letters = [c for c in odd if script_of(c) is not None]
    others = [c for c in odd if script_of(c) is None]
    if letters:
        facts = {"script": (script or "none").lower(), "found": _shown(letters)}
        yield Finding.of("wrong_script", len(letters), 0, **facts)
    if others:
        yield Finding.of("odd_characters", len(others), 0, found=_shown(others))
    if has_digit(text):
        yield Finding.of("digits")


def _shown(items: Sequence[str]) -> str:
    return named(items) + (" …" if len(items) > 5 else "")
