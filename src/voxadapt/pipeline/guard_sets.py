"""Sentences with a purpose beside the corpus' own: short, long, with numbers or names, questions.

They guard and never choose: a candidate that is shown to be worse on one of them than the start is
not taken. Together they have at most half as many characters as the corpus' sentences, so that
scoring takes at most half as long again.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from voxadapt import data
from voxadapt.core.errors import raise_problems
from voxadapt.core.params import OwnSentences, ScoreParams
from voxadapt.core.problems import user_error
from voxadapt.core.provenance import fingerprint
from voxadapt.core.strict_yaml import read_yaml
from voxadapt.data.manifest import check_text
from voxadapt.data.texts import read_texts
from voxadapt.scoring.rows import Guard, Sentence

FOLDER = Path(data.__file__).parent / "sets"
LONGER = 0.5  # share of the corpus' characters that all sets may have together


def guard_sentences(
    score: ScoreParams, language: str, corpus: Sequence[Sentence], salt: str, folder: Path
) -> list[Sentence]:
    """Return the sentences of the sets that `score.sets` names, as many as may be spoken.

    A set that has a file in the corpus' `folder`, such as `sets/short.jsonl`, is read from it, any
    other is the shipped one of the language. A set that is in neither, or of which nothing fits, is
    left out with a line that says so. What is among the corpus' own sentences is left out; `salt`
    decides the order in which sentences are taken.

    Raises:
        UserError: When a user's own file cannot be read, or none of its sentences fits.
    """
    wanted: list[Guard | OwnSentences] = [item for item in score.sets if item != "corpus"]
    # The user's own must be spoken; one long sentence may need more than its part.
    wanted.sort(key=lambda item: (not isinstance(item, OwnSentences), item != "long"))
    total = LONGER * sum(len(item.text) for item in corpus)
    known = {item.text for item in corpus}
    found: list[Sentence] = []
    for number, item in enumerate(wanted):
        name: Guard = "own" if isinstance(item, OwnSentences) else item
        left, taken = total / (len(wanted) - number), 0
        for text in _in_order(item, language, salt, folder):
            if text in known or len(text) > (left if taken else total):
                continue
            known.add(text)
            taken, left, total = taken + 1, left - len(text), total - len(text)
            text_id = f"{name}-{fingerprint(text, 10)}"
            split = corpus[0].split
            found.append(Sentence(text_id=text_id, text=text, split=split, slice=name))
        if taken:
            continue
        if name == "own":
            raise user_error("pipeline.long_sentences", "score.sets: own")
        print(f"score.sets: no {name!r} sentence for {language!r} fits; the set is left out",
              file=sys.stderr)  # fmt: skip
    return found


def _in_order(item: Guard | OwnSentences, language: str, salt: str, folder: Path) -> list[str]:
    """Return a set's sentences by hash; `own` ones in the order of the file."""
    if isinstance(item, OwnSentences):
        return _own(item.own)
    beside = folder / "sets" / f"{item}.jsonl"
    texts = _own(str(beside)) if beside.is_file() else _shipped(item, language)
    return sorted(texts, key=lambda text: fingerprint([salt, text]))


def _own(path: str) -> list[str]:
    """Read a user's own sentences: lines of text, or JSONL with a text in each line."""
    if Path(path).suffix == ".jsonl":
        return [line.text for line in read_texts(path, any_field=True)]
    where = f"score.sets: own: {path}"
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise user_error("pipeline.no_sentences", where, error=error) from None
    texts = {f"{path}:{n}": line.strip() for n, line in enumerate(lines, 1) if line.strip()}
    if not texts:
        raise user_error("pipeline.empty_sentences", where)
    raise_problems([wrong for at, text in texts.items() for wrong in check_text(at, text)], where)
    return list(texts.values())


def _shipped(name: str, language: str) -> list[str]:
    """Read a set that is shipped for a language; empty where there is none."""
    path = FOLDER / f"{language}.yaml"
    sets = read_yaml(path) if path.is_file() else {}
    assert isinstance(sets, dict)
    return [str(text) for text in sets.get(name, ())]
