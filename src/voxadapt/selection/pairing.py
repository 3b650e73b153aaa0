"""Which rows may be compared: the same clips, scored by the same evaluator."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from voxadapt.core.errors import Problem, raise_problems
from voxadapt.core.params import SelectParams, epoch_number, in_stage2
from voxadapt.core.problems import problem, user_error
from voxadapt.core.records import Record
from voxadapt.scoring.measures import refuse_words
from voxadapt.scoring.rows import ScoreRow

BASE = "base"


def in_order(names: Iterable[str], start: str) -> list[str]:
    """Sort candidates: the start first, then the Base, then the epochs of each stage."""
    return sorted(
        names, key=lambda name: (name != start, name != BASE, in_stage2(name), epoch_number(name))
    )


def check_pairs(
    rows: Mapping[str, Sequence[ScoreRow]], names: Sequence[str], start: str = BASE
) -> list[Problem]:
    """Find what keeps candidates from having spoken the same takes of the same texts as the start.

    Raises:
        UserError: When the start has no rows.
    """
    if not rows.get(start):
        which = "the zero-shot base" if start == BASE else start
        raise user_error("selection.no_start", "candidates", which=which, start=start)
    expected = {row.key: (row.text, row.split) for row in rows[start]}
    problems = [item for name in names for item in _unpaired(name, rows[name], expected, start)]
    splits = sorted({split for _, split in expected.values()})
    if len(splits) > 1:
        problems.append(problem("selection.several_splits", "split", found=", ".join(splits)))
    takes = sorted(set(Counter(text_id for text_id, _ in expected).values()))
    if len(takes) > 1:
        problems.append(problem("selection.uneven_takes", "takes", found=takes))
    return problems


def _unpaired(
    name: str,
    rows: Sequence[ScoreRow],
    expected: Mapping[tuple[str, int], tuple[str, str]],
    start: str,
) -> Iterator[Problem]:
    """Find how one candidate's rows differ from the clips (text and split by key) of the start."""
    found: dict[tuple[str, int], tuple[str, str]] = {}
    for row in rows:
        if row.candidate != name:
            yield problem("selection.other_candidate", name, name=name, found=row.candidate)
        if row.key in found:
            yield problem("selection.double_row", f"{name}, text {row.text_id}")
        found[row.key] = (row.text, row.split)
    models = sorted({row.checkpoint_sha for row in rows})
    if len(models) > 1:
        shown = ", ".join(model[:12] or "none" for model in models)
        yield problem("selection.several_checkpoints", name, found=shown)
    missing, extra = len(expected.keys() - found.keys()), len(found.keys() - expected.keys())
    if missing or extra:
        facts = {"count": len(expected), "missing": missing, "extra": extra}
        yield problem("selection.other_clips", name, start=start, **facts)
    elif found != expected:
        yield problem("selection.other_texts", name, start=start)


def check_candidates(
    rows: Mapping[str, Sequence[ScoreRow]], names: Sequence[str], params: SelectParams, start: str
) -> str:
    """Refuse rows that cannot be paired or measured so, and return their split."""
    problems = check_pairs(rows, names, start)
    texts = [(row.lang, row.text_norm) for row in rows[start]]
    problems += refuse_words(texts, params.error_metric)
    raise_problems(problems[:50], "The candidates cannot be compared.")
    return rows[start][0].split


def comparable(
    rows: Sequence[ScoreRow],
    split: str,
    evaluator: Mapping[str, str],
    fix: str = "Run the codes stage again.",
) -> list[ScoreRow]:
    """Keep the rows of a split, such as recordings', and refuse those of another evaluator.

    Of several languages, one that the evaluator was not asked for may be among them.

    Raises:
        UserError: When they were normalised, transcribed or compared by something else.
    """
    kept = [row for row in rows if row.split == split]
    # Recordings that have passed no codec are compared with one another, not with a candidate.
    shared = ("norm_id", "asr_id", *(["sim_id"] if kept and kept[0].candidate != "real" else []))
    for name in shared:
        found, known = {getattr(row, name): row.lang for row in kept}, evaluator[name].split(", ")
        other = found.keys() - set(known)
        if len(other) < len(found):
            other = {
                key for key in other if any(re.search(rf"/{found[key]}\b", item) for item in known)
            }
        if other:
            facts = {"expected": evaluator[name], "found": ", ".join(sorted(other)), "fix": fix}
            raise user_error("selection.other_evaluator", f"{kept[0].candidate}: {name}", **facts)
    return kept


def check_scale(scale: Record | None, evaluator: Mapping[str, str]) -> None:
    """Refuse a ceiling and floor that were measured against another centroid than the rows."""
    found = None if scale is None else scale.get("sim_id")
    if found is not None and found != evaluator["sim_id"]:
        facts = {"expected": evaluator["sim_id"], "found": found}
        raise user_error("selection.other_centroid", "similarity.json: sim_id", **facts)
