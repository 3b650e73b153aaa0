"""Transcripts: folding keeps what is said, in any script."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxadapt.data.text import (
    dominant_script,
    fold_text,
    has_digit,
    has_letter,
    has_markup,
    num_sentences,
    num_spoken_characters,
    odd_characters,
    scripts,
    special_tokens,
)

FOLDED = {
    "She said: “Don’t!”": "she said dont",
    "  a\u00a0b\t c ": "a b c",
    "well-known": "well known",
    "ＦＵＬＬ　ｗｉｄｔｈ": "full width",
    "Straße": "strasse",
    "हिन्दी में": "हिन्दी में",  # vowel signs and virama are marks: dropping them changes the words
    "ภาษาไทย ที่นี่": "ภาษาไทย ที่นี่",
    "e\u0301te\u0301": "été",
    "zero\u200bwidth \u202eleft": "zerowidth left",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ①": "unicode 1",
    "5 € + 3 %": "5 3",
    "?!…": "",
    "": "",
}


@pytest.mark.parametrize("text", FOLDED)
def test_folding(text: str) -> None:
    assert fold_text(text) == unicodedata.normalize("NFKC", FOLDED[text])


@given(st.text())
def test_folding_twice_changes_nothing(text: str) -> None:
    folded = fold_text(text)
    assert fold_text(folded) == folded
    assert folded == " ".join(folded.split())
    assert unicodedata.is_normalized("NFKC", folded)
    assert not any(unicodedata.category(c)[0] in "PSC" for c in folded)


@given(st.text(), st.text())
def test_folding_keeps_marks(before: str, after: str) -> None:
    assert fold_text(f"{before} कि {after}") != fold_text(f"{before} क {after}")


@given(st.text(alphabet="abcdefghijk ABCDEF.,'-!äöüß"))
def test_folding_ignores_case_and_composition(text: str) -> None:
    assert fold_text(text) == fold_text(text.upper())
    assert fold_text(text) == fold_text(unicodedata.normalize("NFD", text))


def test_scripts() -> None:
    assert dominant_script(["Hello", "wörld", "Привет"]) == "LATIN"
    assert dominant_script(["漢字とカナ"]) == "HAN/KANA"
    assert dominant_script(["안녕하세요"]) == "HANGUL"
    assert dominant_script(["نص عربي"]) == "ARABIC"
    assert dominant_script(["123 !?"]) is None
    assert scripts("aя") == {"LATIN": 1, "CYRILLIC": 1}


def test_odd_characters() -> None:
    assert odd_characters("A plain – “sentence”, 100 %; naïve café.", "LATIN") == []
    assert odd_characters("bаnk", "LATIN") == ["а"], "a Cyrillic letter that looks Latin"
    assert odd_characters("fine 😀 😀", "LATIN") == ["😀"]
    assert odd_characters("a \u202e b \ufffd \ue000", "LATIN") == ["\u202e", "\ufffd", "\ue000"]
    assert odd_characters("漢字とカナ。人々", "HAN/KANA") == []
    assert odd_characters("हिन्दी", "DEVANAGARI") == []


SENTENCES = {
    "One sentence.": 1,
    "No stop at all": 1,
    "One. Two.": 2,
    "Is it? Yes! It is.": 3,
    "He said “Stop!” and left.": 1,
    "Dr. Smith met Mr. Jones.": 1,
    "J. R. Tolkien wrote it.": 1,
    "It costs 3.50 in all.": 1,
    "Wait... what happened?": 1,
    "See e.g. the first one.": 1,
    "今日は晴れ。明日は雨。": 2,
    "यह एक है। यह दो है।": 2,
    "هل هذا صحيح؟ نعم": 2,
    "...": 1,
    "یہ ایک ہے۔ یہ دو ہے۔": 2,
    "នេះជាមួយ។នេះជាពីរ។": 2,
    "ይህ አንድ ነው። ይህ ሁለት ነው።": 2,
    "ይህ አንድ ነው።ይህ ሁለት ነው።": 2,
    "ဒါက တစ်ခု။ ဒါက နှစ်ခု။": 2,
    "Սա մեկն է։ Սա երկուսն է։": 2,
    "यह एक है॥ यह दो है॥": 2,
    "Is it?! Yes‼ It is⁉ Good": 4,
    "ܐܢܐ܀ ܐܢܬ": 2,
}


@pytest.mark.parametrize("text", SENTENCES)
def test_number_of_sentences(text: str) -> None:
    assert num_sentences(text) == SENTENCES[text]


@given(st.text())
def test_any_text_is_measured(text: str) -> None:
    assert num_sentences(text) >= 1
    assert num_spoken_characters(text) == len(fold_text(text).replace(" ", ""))
    odd_characters(text, dominant_script([text]))


def test_special_tokens() -> None:
    for token in ("<|endoftext|>", "<|im_end|>", "<|tts_pad|>", "<|anything else|>", "<|zh|>",
                  "<tts_pad>", "<tts_text_bos>", "</s>", "<think>", "[PAD]",
                  "＜|s|＞", "<sos>", "<sos/eos>", "[gMASK]", "[INST]", "[/INST]", "<<SYS>>",
                  "<start_of_turn>", "<eot_id>", "< |endoftext| >", "&lt;|endoftext|&gt;",
                  "<custom_token_3>", "<BOS_TOKEN>", "<endoftext>", "<0x0A>", "<speaker_1>",
                  "[BLANK_AUDIO]", "<extra_id_0>"):  # fmt: skip
        assert special_tokens(f"a {token} b"), token
    for text in ("a < b | c > d", "a <| b", "[laughter]", "x <= y", "[Pause]", "<laugh>"):
        assert special_tokens(text) == []


def test_kinds() -> None:
    assert has_letter("क")
    assert not has_letter("12 ?!")
    assert has_digit("two 2")
    assert has_digit("²")
    assert not has_digit("two")
    assert has_markup("a <b>bold</b> word")
    assert has_markup("salt &amp; pepper")
    assert not has_markup("a < b and c > d")
