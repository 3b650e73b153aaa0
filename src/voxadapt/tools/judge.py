"""Judging the recogniser: `voxadapt judge`.

What it makes of recordings is known from the stage `codes`. Here it also hears speech that is wrong
on purpose: words dropped, doubled, replaced, their endings cut, and sounds swapped, in words that
no language model would expect. That is what an adapted model gets wrong.
"""

from functools import partial

from voxadapt.asr.normalise import normalise
from voxadapt.core.files import write_atomic, write_json
from voxadapt.core.params import Params, language_section
from voxadapt.core.problems import user_error
from voxadapt.core.records import Record, read_record
from voxadapt.core.stage import StageResult
from voxadapt.data.respelling import Respelling, load_respelling
from voxadapt.generation.synthesis import speak_candidate
from voxadapt.pipeline.candidates import BASE, check_name, find_candidate
from voxadapt.pipeline.context import ROOT, open_context
from voxadapt.pipeline.measuring import Measuring
from voxadapt.pipeline.sentences import track_sentences
from voxadapt.pipeline.speaking import load_speaking
from voxadapt.pipeline.tracks import Track, language_track, speaker_track
from voxadapt.reporting.judge_page import build_page
from voxadapt.scoring.recogniser import Alteration, alterations, has_error, noticed, swap_sound
from voxadapt.scoring.rows import Sentence

RIGHT = "right"


def judge(
    params: Params, num_spoken: int = 0, candidate: str = BASE, language: bool = False
) -> StageResult:
    """Say what the recogniser can tell; have wrong sentences spoken first, if they are asked for.

    `num_spoken` sentences are spoken right and in each wrong version; 0 reads what the recordings
    have shown. The record is written to `reports/recogniser.json` beside a page.
    """
    track = language_track(params) if language else speaker_track(params)
    record = read_record(track.corpus.recogniser, "language data" if language else "codes")
    if num_spoken:
        respelling = load_respelling(language_section(params).respelling) if language else None
        name = check_name(candidate, track.candidates)
        record = {**record, "spoken": _spoken(params, track, name, num_spoken, respelling)}
    folder = track.corpus.reports
    write_json(folder / "recogniser.json", record)
    page = folder / "recogniser.html"
    write_atomic(page, build_page(record, params.select.confidence))
    return StageResult(f"{record['real']['text']} {page}", record)


def _spoken(
    params: Params, track: Track, name: str, count: int, respelling: Respelling | None
) -> Record:
    """Have sentences spoken right and wrong; return how often the recogniser notices."""
    lang = track.asr.language  # of a corpus in two languages, the recogniser is told this one
    ranked = [item for item in track_sentences(track, "selection")
              if item.slice == "ranked" and item.lang in (None, lang)]  # fmt: skip
    graphemes = [item.letters for item in respelling.graphemes] if respelling else []
    vocabulary = sorted({word for item in ranked for word in _words(item.text, track)})
    versions: dict[str, list[Alteration]] = {}
    to_speak: dict[str, str] = {}
    for number, item in enumerate(ranked[:count]):
        words = _words(item.text, track)
        found = alterations(words, vocabulary, track.rule.seed + number)
        swapped = swap_sound(words, graphemes, track.rule.seed + number)
        versions[item.text_id] = [*found, *([swapped] if swapped else [])]
        to_speak[f"{item.text_id}-{RIGHT}"] = " ".join(words)
        for version in versions[item.text_id]:
            to_speak[f"{item.text_id}-{version.kind}"] = " ".join(version.wrong)
    if not any(versions.values()):
        raise user_error("tools.no_sentences", track.corpus.manifest)
    context = open_context(params)
    clean, speaker = find_candidate(track, name), track.speakers()[0]
    one = next(iter(load_speaking(track, clean, (speaker,), context)))
    # The Base reads a language that it does not know in the spelling that is written for it.
    read = respelling.respell if respelling is not None and name == BASE else str
    clips = speak_candidate(
        one.tts, name,
        [Sentence(text_id=key, text=read(text), split="judge") for key, text in to_speak.items()],
        one.voice, track.score.model_copy(update={"takes": 1}),
        out_dir=context.work_dir / "judge" / name, work_dir=context.work_dir / "speech", root=ROOT,
        checkpoint_sha=clean.sha, lang=track.asr.language,
        language="auto" if name == BASE else track.tag,
        executor=context.executor, load=partial(one.load, context.worker_device),
    )  # fmt: skip
    heard = {clip.text_id: ROOT / clip.wav for clip in clips if clip.status == "ok"}
    transcripts = Measuring(context, track.asr, track.score).transcriber.transcribe(
        list(heard.values()), [to_speak[key] for key in heard], context.executor
    )
    texts = {
        key: normalise(found.text, track.asr.language).split()
        for key, found in zip(heard, transcripts, strict=True)
    }
    by_kind: dict[str, list[tuple[bool, bool]]] = {}
    for text_id, found in versions.items():
        words = to_speak[f"{text_id}-{RIGHT}"].split()
        for version in found:
            wrong, right = (
                has_error(words, texts.get(f"{text_id}-{key}", []), version.right_span)
                for key in (version.kind, RIGHT)
            )
            by_kind.setdefault(version.kind, []).append((wrong, right))
    return {
        "candidate": name,
        "num_sentences": len(versions),
        "num_without_audio": len(to_speak) - len(heard),
        "kinds": {kind: noticed(pairs, track.rule) for kind, pairs in sorted(by_kind.items())},
    }


def _words(text: str, track: Track) -> list[str]:
    return normalise(text, track.asr.language).split()
