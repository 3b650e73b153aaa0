"""Transcripts: the folded form that identifies a text, scripts, sentences, length.

Everything here works on any language: it uses Unicode categories and character names, no word
lists except the few Latin abbreviations in `num_sentences`.
"""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

# Apostrophes inside a word vanish (don't -> dont); other marks separate words.
_APOSTROPHES = frozenset("'\u2018\u2019\u02bc\u02bb\uff07\u0060\u00b4")
_TATWEEL = "\u0640"
_EAST_ASIAN = dict.fromkeys(("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA"), "HAN/KANA")
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st jr sr no vs etc e.g i.e fig vol approx dept".split()
)
# Full stops, question and exclamation marks by script; the last group needs no blank after it.
_SENTENCE_END = re.compile(
    r"[.!?\u2026\u037e\u0589\u061f\u061d\u061e\u06d4\u0700-\u0702\u0964\u0965\u1367\u1368"
    r"\u166e\u1803\u1809\u1c7e\u1c7f\u2047-\u2049\u203c\u203d]+[\"'\u2019\u201d)\]\u00bb]*\s+"
    r"|(?:[\u3002\uff01\uff0e\uff1f\uff61\u104a\u104b\u1362\u17d4\u17d5\u0f0d\u0f0e]+\s*)+"
    r"|[\u1362\u0964\u06d4](?=\w)"
)
# Control tokens of speech and language models: <|endoftext|>, <tts_pad>, <think>, [INST].
_SPECIAL_TOKEN = re.compile(
    r"<\s?\|[^<>|]*\|\s?>"
    r"|</?(?:s|unk|pad|bos|eos|sos|sos/eos|eot|eom|eod|sop|eop|blk|blank|mask|null|cls|sep|think"
    r"|endoftext|tool_call|tool_response|0x[0-9a-f]{2}|\w+_token(?:_\d+)?|(?:speaker|eot)_\w+"
    r"|(?:start|end)_of_\w+|(?:tts|audio|image|video|vision|extra_id|fim|im|object_ref|box|quad)_\w+)>"
    r"|<</?SYS>>|\[/?INST\]|\[g?(?:CLS|SEP|PAD|UNK|MASK|BOS|EOS|BLANK_AUDIO)\]",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"<[A-Za-z/!][^<>]*>|&[A-Za-z]{2,8};|&#\d+;")


def fold_text(text: str) -> str:
    """Fold a text to the form that identifies it: what is said, not how it is written.

    NFKC and case folding; punctuation and symbols are dropped (a blank stands in for them, except
    for apostrophes); invisible format characters are dropped; combining marks are **kept**, since
    they are vowels in many scripts; blanks are collapsed. Folding twice changes nothing.
    """
    for _ in range(8):  # NFKC after dropping a character may compose again; two rounds suffice
        folded = _fold_once(text)
        if folded == text:
            break
        text = folded
    return text


def _fold_once(text: str) -> str:
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = []
    for character in text:
        category = unicodedata.category(character)
        if character in _APOSTROPHES or category == "Cf":
            continue
        kept.append(character if category[0] in "LMN" else " ")
    return " ".join("".join(kept).split())


def has_letter(text: str) -> bool:
    """Say whether a text has at least one letter of any script."""
    return any(unicodedata.category(character)[0] == "L" for character in text)


def is_speakable(text: str) -> bool:
    """Say whether a text has a letter or digit that is read aloud, so that it can be scored.

    A tatweel only stretches a word, and an apostrophe that counts as a letter stands for none.
    """
    return any(
        unicodedata.category(character)[0] in "LN" and character != _TATWEEL
        for character in fold_text(text)
    )


def has_digit(text: str) -> bool:
    """Say whether a text has a digit or another number character."""
    return any(unicodedata.category(character)[0] == "N" for character in text)


def has_markup(text: str) -> bool:
    """Say whether a text has HTML or XML tags or entities in it."""
    return _MARKUP.search(text) is not None


def special_tokens(text: str) -> list[str]:
    """Return the control tokens spelt out in a text, each once: a model would obey them."""
    text = unicodedata.normalize("NFKC", html.unescape(text))
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")  # unseen amid a token
    return list(dict.fromkeys(_SPECIAL_TOKEN.findall(text)))


def invisible_controls(text: str) -> list[str]:
    """Return the code points that no transcript holds: control characters, lone surrogates."""
    return [f"U+{ord(c):04X}" for c in text if unicodedata.category(c) in ("Cc", "Cs")]


def script_of(character: str) -> str | None:
    """Name the script of a letter, or None for what belongs to every script.

    Han and both kana count as one script, because Japanese mixes them.
    """
    if unicodedata.category(character)[0] != "L":
        return None
    name = unicodedata.name(character, "UNNAMED").split()[0].split("-")[0]
    if name in ("MODIFIER", "FEMININE", "MASCULINE"):
        return None
    return _EAST_ASIAN.get(name, name)


def scripts(text: str) -> Counter[str]:
    """Count a text's letters by script."""
    found = (script_of(character) for character in unicodedata.normalize("NFKC", text))
    return Counter(name for name in found if name is not None)


def dominant_script(texts: Iterable[str]) -> str | None:
    """Return the script of most letters over all texts, or None when there is no letter."""
    total: Counter[str] = Counter()
    for text in texts:
        total.update(scripts(text))
    return max(sorted(total), key=lambda name: total[name]) if total else None


def odd_characters(text: str, script: str | None) -> list[str]:
    """Return what does not belong into a transcript of one script, in order, each once.

    That is: letters of another script (also look-alikes such as a Cyrillic a in a Latin word),
    emoji and other pictographs, replacement characters, private or unassigned code points, and
    controls of the writing direction.
    """
    odd: dict[str, None] = {}
    for character in unicodedata.normalize("NFKC", text):
        category = unicodedata.category(character)
        other = script_of(character)
        if (
            (other is not None and script is not None and other != script)
            or category in ("So", "Co", "Cn")
            or character in _BIDI_CONTROLS
            or character == "\ufffd"
        ):
            odd[character] = None
    return list(odd)


def num_spoken_characters(text: str) -> int:
    """Count letters, marks and digits: what speech rate is measured in."""
    return sum(character != " " for character in fold_text(text))


def num_sentences(text: str) -> int:
    """Estimate how many sentences a transcript holds.

    A sentence ends at a full stop, question or exclamation mark of any script that more letters
    follow. Abbreviations, initials and a following lower-case
    letter do not end one. It is an estimate, good for a warning and not for more.
    """
    count, start = 1, 0
    text = text.strip()
    for match in _SENTENCE_END.finditer(text):
        before, after = text[start : match.start()], text[match.end() :]
        if not has_letter(after) or not has_letter(before):
            continue
        follower = next(c for c in after if unicodedata.category(c)[0] in "LN")
        word = before.split()[-1].lstrip("\"'(\u201c\u2018").casefold() if before.split() else ""
        is_stop = match.group().strip("\"'\u2019\u201d)] ") == "."
        if follower.islower() or (is_stop and (word in _ABBREVIATIONS or len(word) == 1)):
            continue
        count, start = count + 1, match.end()
    return count
