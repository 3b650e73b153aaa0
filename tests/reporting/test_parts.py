"""Tables, figures and players."""

import base64
import io
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread
from matplotlib.text import Text

from reporting.world import interval, make_params, make_row, make_selection, make_summary
from voxadapt.core import paths
from voxadapt.core.files import first_by_hash, read_json
from voxadapt.reporting import figures, mel, players, tables
from voxadapt.scoring.score_clips import metrics_row


@pytest.fixture
def inside(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(world)
    return world


def words(text: str) -> str:
    return text.replace("\u00a0", " ")


def sound_of(uri: str) -> tuple[np.ndarray, int]:
    return soundfile.read(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


@pytest.mark.parametrize("rate_hz", [16000, 24000, 44100, 96000])
def test_players_keep_rate_and_loudness(tmp_path: Path, rate_hz: int) -> None:
    t = np.arange(rate_hz) / rate_hz
    quiet = 0.02 * np.sin(2 * np.pi * 220 * t)
    soundfile.write(tmp_path / "a.wav", quiet, rate_hz)
    samples, found_hz = sound_of(players.audio_uri(tmp_path / "a.wav") or "")
    assert found_hz == rate_hz
    middle = samples[rate_hz // 4 : 3 * rate_hz // 4]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.02 / np.sqrt(2), rel=0.05)


def test_players_are_deterministic_and_average_channels(tmp_path: Path) -> None:
    t = np.arange(24000) / 24000
    left = 0.4 * np.sin(2 * np.pi * 220 * t)
    soundfile.write(tmp_path / "a.wav", np.stack([left, 0 * left], axis=1), 24000)
    uri = players.audio_uri(tmp_path / "a.wav") or ""
    assert uri == players.audio_uri(tmp_path / "a.wav")
    assert np.abs(sound_of(uri)[0]).max() == pytest.approx(0.2, rel=0.1)


def test_player_says_when_there_is_nothing_to_play(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    for path in (None, tmp_path / "absent.wav", tmp_path / "broken.wav"):
        assert "no audio" in players.player(path)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 24000)
    assert "no audio" in players.player(tmp_path / "empty.wav")


@pytest.mark.parametrize(
    ("expected", "heard", "html"),
    [
        ("a b c", "a b c", "a b c"),
        ("a b c", "a c", "a <del>b</del> c"),
        ("a c", "a b c", "a <ins>b</ins> c"),
        ("a b c", "a x c", "a <del>b</del> <ins>x</ins> c"),
        ("a", "", "<del>a</del>"),
        ("", "", ""),
        ("a & b", "a < b", "a <del>&amp;</del> <ins>&lt;</ins> b"),
        ("今天天气很好我们去公园散步吧", "今天天气很坏我们去公园散步吧",
         "今天天气很 <del>好</del> <ins>坏</ins> 我们去公园散步吧"),
    ],
)  # fmt: skip
def test_differences_are_marked(expected: str, heard: str, html: str) -> None:
    assert players.diff_html(expected, heard) == html


def test_a_failed_clip_counts_as_all_wrong() -> None:
    row = make_row("epoch-1", 0, 0, "one two three four", "a.wav")
    right = row | {"word_substitutions": 1, "word_deletions": 0, "word_insertions": 0}
    assert tables.error_of(right) == 0.25
    assert tables.error_of(right | {"word_insertions": 30}) == 1.0
    assert tables.error_of(right | {"status": "failed"}) == 1.0


def test_worst_clips_begin_with_the_failed_one() -> None:
    rows = [make_row("epoch-3", i, 0, "one two three four five", "a.wav") for i in range(8)]
    rows[5] |= {"status": "failed", "sim": None}
    ranked = tables.worst(rows, 8)
    assert ranked[0] is rows[5]
    errors = [tables.error_of(row) for row in ranked]
    assert errors == sorted(errors, reverse=True)
    assert ranked == tables.worst(rows[::-1], 8)


def test_the_uncurated_sample_does_not_depend_on_order_and_grows_in_place() -> None:
    ids = [f"utt-{i}" for i in range(20)]
    assert first_by_hash(ids, 6) == first_by_hash(ids[::-1], 6)
    assert first_by_hash(ids, 6) == first_by_hash(ids, 12)[:6]


def test_numbers_are_written_with_units_and_signs() -> None:
    assert tables.percent(0.0345) == "3.5\u00a0%"
    assert tables.percent(-0.0001) == "0.0\u00a0%"
    assert tables.number(-0.0001, 3, sign=True) == "0.000"
    assert tables.percent(None) == "–"
    value = {"point": -0.0123, "low": -0.03, "high": 0.01, "n": 9}
    assert words(tables.interval(value, share=True, sign=True)) == "−1.2 points (−3.0 to +1.0)"
    assert words(tables.interval(value)) == "−0.012 (−0.030 to 0.010)"
    assert tables.interval({"point": None, "low": None, "high": None, "n": 0}) == "–"
    assert (
        tables.named("epoch-3 beats epoch-12, not epoch-x") == "epoch 3 beats epoch 12, not epoch-x"
    )


@pytest.mark.parametrize(
    ("record", "page"),
    [
        ("epoch-6: SIM-resemblyzer +0.235 [+0.226, +0.244], WER -0.082 [-0.145, -0.019].",
         "Epoch 6: similarity +0.235 (+0.226 to +0.244), WER −8.2 points (−14.5 to −1.9)."),
        ("its CER 0.599 of 5 %; -0.003 [-0.007, +0.000]; -2.7 points [-5.1, -0.4]",
         "Its CER 59.9 % of 5 %; −0.003 (−0.007 to 0.000); −2.7 points (−5.1 to −0.4)"),
        ("max-t at 10-20, stage2-epoch-1", "Max-t at 10-20, epoch 1 of Stage 2"),
        ("With 60 sentences x 2 takes a true difference of 0.054 in CER between two epochs is "
         "found; a difference of 0.01 needs about 1720 sentences; for 1 points, 2.1 points.",
         "With 60 sentences × 2 takes a true difference of 5.4 points in CER between two epochs is "
         "found; a difference of 1 point needs about 1720 sentences; for 1 point, 2.1 points."),
        ("its CER 0.359 is one of 2 (to the best, epoch-3: +0.004 [-0.035, +0.044]), and",
         "Its CER 35.9 % is one of 2 (to the best, epoch 3: +0.4 points (−3.5 to +4.4)), and"),
        ("its SIM-resemblyzer 0.930 is one of 2 (to the best, epoch-5: -0.003 [-0.007, +0.001])",
         "Its similarity 0.930 is one of 2 (to the best, epoch 5: −0.003 (−0.007 to +0.001))"),
    ],
)  # fmt: skip
def test_sentences_of_records_are_written_as_the_page_writes(record: str, page: str) -> None:
    written = tables.typeset(record)
    assert words(written) == page
    assert not re.search(r"\d (%|points)|\d to", written)  # these blanks do not break


def test_metrics_row_is_flat_and_short() -> None:
    rows = [make_row("base", 0, 0, "one two", "a.wav")]
    summary = make_summary("base", rows)
    row = metrics_row(summary)
    assert all(isinstance(value, int | float) for value in row.values())
    assert (row["wer"], row["sim"], row["n"]) == (0.14, 0.62, 1)
    both = metrics_row(summary, make_summary("base", rows))
    assert set(both) == {*row, "source_cer"} and both["source_cer"] == both["cer"]
    # A table of DVC: two blanks after the longest cell, headers with two more.
    path = "reports/language/metrics/scores/epoch-10.json"
    widths = [max(len(name) + 2, len("0.12345")) + 2 for name in both]
    assert len(path) + sum(widths) <= 120


@pytest.mark.slow
def test_notebook_tables_cover_all_candidates(inside: Path) -> None:
    names = ["Base", "Epoch 1", "Epoch 2 (chosen)", "Epoch 3", "Epoch 4"]
    assert list(tables.candidates().index) == names
    assert list(tables.gates()["error"]) == ["passed"] * 4 + ["failed"]
    assert tables.pairs().loc["Base", "similarity − Base"] == "–"
    difference = tables.confirmation().loc["WER", "difference"]
    assert words(difference) == "−5.0 points (−7.0 to −3.0)"
    assert list(tables.splits()["clips"]) == [8, 8, 8]
    assert tables.findings().iloc[0]["clips"] == 3
    assert list(tables.references().index) == ["Recording", "Recording, coded"]
    assert list(tables.summary("epoch-1").columns) == ["Epoch 1", "Recording, coded", "Recording"]
    assert tables.summary("1").equals(tables.summary("epoch-1"))
    assert tables.flags("base").loc["rate high", "clips"] >= 0
    assert len(tables.frames()) == len(tables.splits())
    assert len(tables.train_epochs()) == 4
    assert words(tables.similarity_scale().iloc[0]["similarity"]) == "0.880 (0.860 to 0.900)"
    assert tables.record(paths.SPEAKER.codes_metrics).loc["num clips", "value"] == 24


def test_notebook_players(inside: Path) -> None:
    assert players.clips_with_findings().count("<audio") == 3
    assert "7 more" not in players.clips_with_findings()
    assert players.round_trip(limit=4).count("<audio") == 8
    assert players.worst_clips("1", limit=5).count("<audio") == 5
    assert 'href="../index.html"' in players.report_link()


@pytest.mark.slow
def test_figures_are_deterministic_png(inside: Path) -> None:
    for draw in (figures.similarity, figures.losses):
        first, again = figures.png(draw()), figures.png(draw())
        assert first == again
        assert first.startswith(b"\x89PNG")
        assert b"Software" not in first
    drawn = (figures.errors(), figures.p_best(), figures.weight_change(), figures.durations(),
             figures.histogram("epoch-2"))  # fmt: skip
    assert all(figure._repr_png_().startswith(b"\x89PNG") for figure in drawn)


@pytest.mark.slow
def test_figures_draw_what_can_be_drawn() -> None:
    """No floor, no similarity for one candidate, a single logged step."""
    selection = make_selection(make_params(1), "epoch-1", "epoch-1")
    selection |= {"scale": None, "asr_floor": None, "codec_floor": None}
    empty = {"point": None, "low": None, "high": None, "n": 0}
    selection["candidates"][0] |= {"sim": empty}
    for figure in (figures.similarity(selection), figures.errors(selection), figures.losses([])):
        assert figures.png(figure)


def test_curves_share_the_candidates_and_ring_the_choice(inside: Path) -> None:
    selection = read_json(paths.SELECTION)
    names = [c["name"] for c in selection["candidates"]]
    loss = figures.Panel("held-out loss", {"": {"epoch-1": interval(4.0), "base": interval(None)}})
    figure = figures.curves([*figures.panels_of(selection), loss], names, "epoch-2", ["epoch-4"])
    errors, similar, losses = figure.axes
    assert [label.get_text() for label in losses.get_xticklabels()] == ["Base", "1", "2", "3", "4"]
    marks = {line.get_xdata()[0]: line for line in similar.lines if line.get_markersize() == 6
             and line.get_marker() in ("o", "s")}  # fmt: skip
    assert [marks[x].get_ydata()[0] for x in range(5)] == [
        c["sim"]["point"] for c in selection["candidates"]
    ]
    assert marks[0].get_marker() == "s" and marks[1].get_marker() == "o"
    assert marks[4].get_markerfacecolor() == figures.LIGHT.card  # a gate was failed
    for axes in (errors, similar):
        rings = [line for line in axes.lines if line.get_markersize() == 13]
        assert [line.get_xdata()[0] for line in rings] == [names.index("epoch-2")]
    assert not [line for line in losses.lines if line.get_markersize() == 13]
    assert {text.get_text() for text in similar.texts} == {"recordings", "coded", "other voices"}


@pytest.mark.parametrize("theme", [figures.LIGHT, figures.NARROW])
def test_names_of_equal_reference_lines_do_not_overlap(theme: figures.Theme) -> None:
    selection = make_selection(make_params(), "epoch-2", "epoch-3")
    selection |= {"scale": {"ceiling": 0.8, "codec_ceiling": 0.8001, "floor": 0.7999}}
    figure = figures.similarity(selection, theme)
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    tops = sorted((box.y0, box.y1) for box in boxes)
    assert len(tops) == 3
    assert all(above[0] > below[1] - 1 for below, above in pairwise(tops))


@pytest.mark.slow
def test_drawings_are_equal_for_equal_figures_and_take_the_colours_of_the_page() -> None:
    selection = make_selection(make_params(), "epoch-2", "epoch-3")
    drawn = figures.svg(figures.similarity(selection), "a")
    assert drawn == figures.svg(figures.similarity(selection), "a")
    assert drawn.startswith("<svg")
    assert "var(--chosen)" in drawn
    assert set(re.findall(r"#[0-9a-f]{6}", drawn)) <= {"#000000"}
    assert "font-family" not in drawn
    assert "<style" not in drawn
    assert ">other voices<" in drawn
    names = set(re.findall(r' id="([^"]+)"', drawn))
    assert names
    assert all(name.startswith("a-") for name in names)


def test_drawings_escape_their_words() -> None:
    payload = "</text><script>alert(1)</script>"
    panel = figures.Panel(payload, {payload: {"base": interval(0.2)}})
    drawn = figures.svg(figures.curves([panel], ("base",), "base"), "a")
    assert "<script" not in drawn
    assert "&lt;script&gt;" in drawn


def tone(level_dbfs: float, seconds: float, rate_hz: int = 24000) -> np.ndarray:
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    return (10 ** (level_dbfs / 20) * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)


def test_spectrograms_have_one_scale_for_all() -> None:
    assert not mel.levels(np.zeros(24000, np.float32), 24000).any()
    quiet, loud = (int(mel.levels(tone(level, 1.0), 24000).max()) for level in (-50, -20))
    assert 0 < quiet < loud <= mel.NUM_LEVELS - 1
    band = [int(mel.levels(tone(-20, 1.0, rate), rate).sum(axis=1).argmax())
            for rate in (16000, 24000, 44100)]  # fmt: skip
    assert len(set(band)) == 1  # the same height whatever the file's rate


@pytest.mark.slow
def test_spectrograms_are_small_pictures(tmp_path: Path) -> None:
    for seconds in (0.001, 1.0, 40.0):
        steps = mel.levels(tone(-20, seconds), 24000)
        assert steps.shape[0] == mel.NUM_BANDS
        assert 1 <= steps.shape[1] <= mel.MAX_COLUMNS
    noise = np.random.default_rng(0).normal(0, 0.1, 40 * 24000).astype(np.float32)
    uri = mel.picture_uri(noise, 24000)
    assert uri == mel.picture_uri(noise, 24000)
    assert len(uri) < 9000
    data = base64.b64decode(uri.split(",", 1)[1])
    pixels = imread(io.BytesIO(data), format="png")
    shown = np.round(pixels[..., 3] * (mel.NUM_LEVELS - 1)).astype(int)
    assert np.array_equal(shown, mel.levels(noise, 24000))


def test_a_page_of_three_hundred_clips_stays_below_fifteen_megabytes(tmp_path: Path) -> None:
    """Twelve candidates and 25 sentences of four seconds, loud in every band."""
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * 24000)
    soundfile.write(tmp_path / "a.wav", noise, 24000)
    sound = players.read_sound(tmp_path / "a.wav")
    assert sound is not None
    assert 300 * (len(sound.uri) + len(sound.mel_uri)) < 14e6
    assert sound.duration_s == 4.0
