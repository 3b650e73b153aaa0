from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxadapt.training import trainer as loop
from voxadapt.training.augmentation import draw, variants


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Come in.", ("Come in", "come in.")),
        ("Wait, who's there?", ("Wait, who's there", "Wait who's there", "wait, who's there?")),
        ('He said "No!"', ('He said "No"', "He said No", 'he said "no!"')),
        ("It is 3.5 % of A-Z…", ("It is 3.5 % of A-Z", "it is 3.5 % of a-z…")),
        ("¿Qué tal?", ("¿Qué tal", "Qué tal", "¿qué tal?")),
        ("你好，世界。", ("你好，世界", "你好 世界")),
        ("क्या हुआ।", ("क्या हुआ",)),
        ("At -5, yes—at a.b.", ("At -5, yes—at a.b", "At -5 yes at a.b", "at -5, yes—at a.b.")),
        ("plain", ()),
        ("...", ()),
    ],
)
def test_the_ways_to_type_a_text(text: str, expected: tuple[str, ...]) -> None:
    assert variants(text) == expected


@given(st.text())
def test_no_word_is_lost_or_changed_but_in_case(text: str) -> None:
    def letters(one: str) -> str:
        return "".join(c for c in one.lower() if c.isalnum())

    for variant in variants(text):
        assert variant.strip()
        assert letters(variant) == letters(text)


def test_the_share_is_kept_and_the_draw_depends_on_nothing_else() -> None:
    drawn = [draw(3, 0.3, 0, epoch, f"clip{n}") for epoch in (1, 2) for n in range(2000)]
    counts = Counter(drawn)
    assert counts[None] / len(drawn) == pytest.approx(0.7, abs=0.03)
    assert all(counts[n] / len(drawn) == pytest.approx(0.1, abs=0.02) for n in range(3))
    assert drawn[:2000] != drawn[2000:]
    assert draw(3, 0.3, 0, 1, "clip7") == drawn[7]
    assert draw(0, 1.0, 0, 1, "clip7") is None


@pytest.mark.slow
def test_an_epoch_reads_some_texts_otherwise_and_a_stopped_run_the_same(world, tmp_path) -> None:
    seen: list[int] = []
    original = loop.Trainer.typed

    def typed(self, epoch):
        read = original(self, epoch)
        assert [e.id for e in read] == [e.id for e in self.examples]
        seen.append(sum(a is not b for a, b in zip(read, self.examples, strict=True)))
        return read

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Trainer, "typed", typed)
        whole = world.train(tmp_path / "whole", 2, text_augmentation=1.0)
    with_variants = sum(bool(variants(row.text)) for row in world.utterances[:7])
    assert seen == [with_variants, with_variants]
    world.train(tmp_path / "parts", 1, text_augmentation=1.0)
    parts = world.train(tmp_path / "parts", 2, text_augmentation=1.0)
    for ours, theirs in zip(parts.checkpoints, whole.checkpoints, strict=True):
        assert (ours / "model.safetensors").read_bytes() == (
            theirs / "model.safetensors"
        ).read_bytes()
