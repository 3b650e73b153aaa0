"""Two recognisers hear the same clips: what they agree on, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from rows import make_system
from voxadapt.core.errors import UserError
from voxadapt.core.params import AsrParams, SelectParams
from voxadapt.scoring.rows import ScoreRow
from voxadapt.selection.second_opinion import second_opinion

SELECT = SelectParams(num_bootstrap=400)
Rows = dict[str, list[ScoreRow]]


def heard(base: float, chosen: float, asr_id: str, seed: int = 0, **fields: object) -> Rows:
    return {
        "base": make_system("base", error=base, seed=seed, asr_id=asr_id, **fields),
        "epoch-2": make_system("epoch-2", error=chosen, seed=seed, asr_id=asr_id, **fields),
    }


def test_two_that_hear_the_same_gain_agree() -> None:
    record = second_opinion(
        heard(0.4, 0.1, "whisper:large+aa"), heard(0.5, 0.2, "whisper:small+bb"), SELECT,
        chosen="epoch-2",
    )  # fmt: skip
    assert record["agrees"] and record["verdict"] == record["first_verdict"] == "better"
    assert (record["first_asr_id"], record["asr_id"]) == ("whisper:large+aa", "whisper:small+bb")
    assert record["metric"] == "wer"
    assert record["base"]["point"] == pytest.approx(0.5, abs=0.1)
    assert record["difference"]["high"] < 0 and record["difference"]["n"] == 24
    assert record["correlation"] > 0.3 and record["num_clips"] == 144
    assert "agree: the second (small) understands epoch-2 better" in record["sentence"]


@pytest.mark.parametrize(("chosen", "verdict"), [(0.5, "undecided"), (0.8, "worse")])
def test_two_that_hear_otherwise_do_not(chosen: float, verdict: str) -> None:
    record = second_opinion(
        heard(0.5, 0.1, "first"), heard(0.5, chosen, "second", seed=3), SELECT, chosen="epoch-2"
    )
    assert not record["agrees"] and record["verdict"] == verdict
    assert record["sentence"].startswith("The two recognisers do not agree")


def test_a_base_that_was_kept_is_heard_once() -> None:
    first, second = heard(0.3, 0.3, "first"), heard(0.4, 0.3, "second")
    record = second_opinion(first, second, SELECT, chosen="base")
    assert record["agrees"] and record["difference"]["point"] == 0.0
    assert record["num_clips"] == 72 and "hears the Base" in record["sentence"]


def test_no_variation_has_no_correlation() -> None:
    record = second_opinion(
        heard(0.0, 0.0, "a", seed=1, word_hits=10, word_substitutions=0), heard(0.2, 0.1, "b", 1),
        SELECT, chosen="epoch-2",
    )  # fmt: skip
    assert record["correlation"] is None and "correlate" not in record["sentence"]


def test_digits_have_no_say() -> None:
    first, second = heard(0.4, 0.1, "a"), heard(0.4, 0.1, "b")
    for rows in (*first.values(), *second.values()):
        rows += [row.model_copy(update={"text_id": "n" + row.text_id, "slice": "digits",
                                        "word_hits": 0, "word_substitutions": 10})
                 for row in rows]  # fmt: skip
    whole = second_opinion(first, second, SELECT, chosen="epoch-2")
    assert whole == second_opinion(
        heard(0.4, 0.1, "a"), heard(0.4, 0.1, "b"), SELECT, chosen="epoch-2"
    )


def test_the_same_recogniser_or_other_clips_are_refused() -> None:
    first = heard(0.4, 0.1, "same")
    with pytest.raises(UserError, match="another model"):
        second_opinion(first, heard(0.4, 0.1, "same"), SELECT, chosen="epoch-2")
    with pytest.raises(UserError, match="clips that the first"):
        second_opinion(
            first, heard(0.4, 0.1, "other", wav_sha256="1" * 64), SELECT, chosen="epoch-2"
        )
    with pytest.raises(ValueError, match=r"another model than asr\.model"):
        AsrParams(model="large-v3", language="en", second="large-v3")


@pytest.mark.slow
def test_rows_are_heard_again_clip_by_clip(tmp_path: Path) -> None:
    from sounds import make_voice, make_whisper, write
    from voxadapt.asr.metrics import word_counts
    from voxadapt.asr.whisper import Transcriber
    from voxadapt.core.files import sha256_file
    from voxadapt.scoring.score_clips import retranscribe

    rows = []
    for index, row in enumerate(make_system("base", num_texts=3, takes=1)):
        wav = write(tmp_path / f"{index}.wav", make_voice(1.5, 110 + index, index))
        rows.append(row.model_copy(update={"wav": wav.name, "wav_sha256": sha256_file(wav)}))
    rows[2] = rows[2].model_copy(update={"status": "failed", "wav": "gone.wav"})
    rows[1] = rows[1].model_copy(update={"flags": ("clipping", "wrong_language")})
    transcriber = Transcriber(make_whisper(tmp_path / "second.pt", seed=7), "en")
    again = retranscribe(rows, transcriber, root=tmp_path)
    assert [row.asr_id for row in again] == [transcriber.asr_id] * 3
    heard_text = transcriber.transcribe([tmp_path / "0.wav"], [rows[0].text])[0].text
    assert again[0].hyp == heard_text
    assert again[0].words == word_counts(again[0].text_norm, again[0].hyp_norm)
    assert again[0].sim == rows[0].sim and again[0].key == rows[0].key
    assert "clipping" in again[1].flags
    assert again[2].failed and again[2].wer == 1.0
    (tmp_path / "0.wav").write_bytes((tmp_path / "1.wav").read_bytes())
    with pytest.raises(UserError, match="clip that was scored"):
        retranscribe(rows, transcriber, root=tmp_path)


WHISPER = Path("data/models/whisper/miniature.pt")
SPEAKER = Path("data/speaker")


@pytest.mark.slow
@pytest.mark.skipif(not WHISPER.is_file(), reason="the miniature is not here: dvc pull")
def test_the_stage_lets_a_second_model_hear_the_finalists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    import soundfile as sf
    import torch

    from voxadapt.asr.whisper import Transcriber
    from voxadapt.core.files import sha256_file
    from voxadapt.core.params import load_params
    from voxadapt.pipeline.context import open_context
    from voxadapt.pipeline.finalists import hear_again
    from voxadapt.pipeline.tracks import speaker_track
    from voxadapt.scoring.rows import read_scores
    from voxadapt.scoring.score_clips import retranscribe

    other = torch.load(WHISPER, weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for tensor in other["model_state_dict"].values():
        if tensor.is_floating_point():
            tensor += 0.02 * tensor.std() * torch.randn(tensor.shape, generator=generator)
    torch.save(other, tmp_path / "other.pt")
    lines = (SPEAKER / "train_raw.jsonl").read_text(encoding="utf-8").splitlines()[:8]
    rows: Rows = {"base": [], "epoch-2": []}
    noise = torch.randn(16_000 * 10, generator=generator).numpy()
    for index, line in enumerate(json.loads(line) for line in lines):
        wave, rate_hz = sf.read(SPEAKER / line["audio"], dtype="float32")
        for name, level in (("base", 2.0 * wave.std()), ("epoch-2", 0.0)):
            wav = tmp_path / f"{name}-{index}.wav"
            sf.write(wav, wave + level * noise[: len(wave)], rate_hz)
            text = line["text"]
            norm = text.lower().rstrip(".")
            rows[name].append(
                make_system(name, 1, 1)[0].model_copy(update={
                    "text_id": f"t{index}", "text": text, "text_norm": norm, "wav": str(wav),
                    "wav_sha256": sha256_file(wav), "ref_words": len(norm.split()),
                    "ref_chars": len(norm.replace(" ", ""))})
            )  # fmt: skip
    params = load_params("params.yaml")
    first = Transcriber(params.asr.model, "en")
    rows = {name: retranscribe(found, first, root=Path()) for name, found in rows.items()}
    folders = {name: tmp_path / name for name in rows}
    second = params.asr.model_copy(update={"second": str(tmp_path / "other.pt")})
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    context, track = open_context(params), speaker_track(params)
    both = speaker_track(params.model_copy(update={"asr": second}))
    record = hear_again(both, context, rows, folders, "epoch-2")
    assert record is not None and record["asr_id"].startswith("whisper:other+")
    assert record["chosen"]["point"] < 0.2 < record["base"]["point"]
    assert record["first_verdict"] == record["verdict"] == "better" and record["agrees"]
    kept = read_scores(folders["epoch-2"] / "second.jsonl")
    assert [row.asr_id for row in kept] == [record["asr_id"]] * 8
    assert hear_again(track, context, rows, folders, "epoch-2") is None
    assert not (folders["epoch-2"] / "second.jsonl").exists()
