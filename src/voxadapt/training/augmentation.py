"""Training texts as people type them: without the final stop, without punctuation, lower case."""

import random

import regex

_FINAL_STOP = regex.compile(r"""[\p{Sentence_Terminal}…]+(?=[\p{Pe}\p{Pf}"']*\s*$)""")
#: Punctuation between words; what is spoken (% & @) or part of a word (' - 3.5 a.b) stays.
_PUNCTUATION = regex.compile(
    r"""(?:(?<=\w)['’·.:\-‐‑](?=\w)|(?<=\p{N})[,\p{Pd}](?=\p{N})|(?<!\S)\p{Pd}(?=\p{N}))(*SKIP)(*FAIL)
    |[\p{Terminal_Punctuation}\p{Ps}\p{Pe}\p{Pi}\p{Pf}\p{Pd}"'…¿¡·]""",
    regex.VERBOSE,
)


def variants(text: str) -> tuple[str, ...]:
    """Return the ways in which a text may be typed that differ from it and from one another."""
    bare = _PUNCTUATION.sub(" ", text)
    found = (" ".join(one.split()) for one in (_FINAL_STOP.sub("", text), bare, text.lower()))
    return tuple(dict.fromkeys(one for one in found if one and one != text))


def draw(count: int, share: float, seed: int, epoch: int, utterance: str) -> int | None:
    """Draw which of `count` variants an utterance has in an epoch; None: its own text.

    The draw depends on its arguments alone: it is the same in a run that was stopped, and whoever
    else is in the corpus.
    """
    stream = random.Random(f"{seed}/{epoch}/{utterance}")
    return stream.randrange(count) if count and stream.random() < share else None
