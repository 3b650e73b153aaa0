"""Languages by code and by name."""

from __future__ import annotations

import pytest

from voxadapt.core.languages import whisper_language

NAMES = {
    "my": "my Burmese burmese Myanmar mya", "zh": "zh Mandarin Chinese cmn zho zh-CN zh_TW",
    "yue": "yue Cantonese zh-yue zh-HK", "jw": "jw jv Javanese jav", "he": "iw he Hebrew heb",
    "en": "en English eng en-US", "de": "de Deutsch German deu ger", "nl": "Flemish nl-BE Dutch",
    "ms": "ms msa zsm Malay", "no": "nb no Norwegian nor", "tl": "fil Tagalog Filipino tgl",
    "pt": "pt-BR Portuguese português", "fa": "Farsi Persian fas", "bn": "Bengali Bangla ben",
    "xx": "xx", "Klingon-ish": "Klingon-ish",
}  # fmt: skip


@pytest.mark.parametrize(("code", "names"), NAMES.items())
def test_names(code: str, names: str) -> None:
    for name in names.split():
        assert whisper_language(name) == code, name
    assert (
        whisper_language("Bahasa Melayu") == "ms" and whisper_language(" haitian creole ") == "ht"
    )


@pytest.mark.parametrize(
    ("name", "code"),
    [("Portuguese (Brazil)", "pt"), ("Chinese (Simplified)", "zh"), ("Myanmar (Burmese)", "my"),
     ("British English", "en"), ("Modern Standard Arabic", "ar"), ("Dari", "fa"), ("zlm", "ms"),
     ("Castellano", "es"), ("普通话", "zh"), ("粤语", "yue"), ("sr-Latn", "sr"),
     ("(unknown)", "(unknown)"), ("Chinese (Cantonese)", "yue"), ("Chinese (Mandarin)", "zh"),
     ("Norwegian (Nynorsk)", "nn"), ("Serbian (Latin)", "sr"), ("English (US)", "en"),
     ("Catalan; Valencian", "ca"), ("Greek, Modern", "el"), ("Francais", "fr"), ("Turkce", "tr"),
     ("Tieng Viet", "vi"), ("Norwegian Bokmal", "no"), ("Serbo-Croatian", "sr"),
     ("Egyptian Arabic", "ar"), ("arz", "ar"), ("漢語", "zh"), ("廣東話", "yue"), ("jp", "ja"),
     ("kr", "ko"), ("English language", "en"), ("Русский язык", "ru"), ("english-us", "en"),
     ("<|ms|>", "ms"), ("Taiwanese Mandarin", "zh"), ("zho_Hans", "zh"), ("zsm_Latn", "ms")],
)  # fmt: skip
def test_names_of_lists(name: str, code: str) -> None:
    assert whisper_language(name) == code


def test_every_code_and_name_of_whisper() -> None:
    from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE

    for code in LANGUAGES:
        assert whisper_language(code) == code
    for name, code in TO_LANGUAGE_CODE.items():
        assert whisper_language(name) == code, name
