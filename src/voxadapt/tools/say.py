"""Speaking a text with a trained model: `voxadapt say` and `voxadapt language say`.

A file is spoken passage by passage. Each passage is stored in the work folder by what decides its
sound, so that a run that was stopped goes on where it was, and after an edit only what has changed
is spoken. What is held in memory is one batch, and then one passage.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxadapt.asr.normalise import normalise
from voxadapt.core.files import read_json, write_atomic
from voxadapt.core.languages import model_language, whisper_language
from voxadapt.core.lineage import check_made
from voxadapt.core.params import Params
from voxadapt.core.problems import user_error
from voxadapt.core.progress import Progress
from voxadapt.core.provenance import fingerprint
from voxadapt.core.records import read_record
from voxadapt.core.stage import StageResult
from voxadapt.data.audio import encode, write_wav
from voxadapt.data.speakers import choose_speakers
from voxadapt.data.text import special_tokens
from voxadapt.generation import decoding, synthesis
from voxadapt.pipeline import references
from voxadapt.pipeline.candidates import BASE, Candidate, check_name, check_weights, find_candidate
from voxadapt.pipeline.context import Context, open_context
from voxadapt.pipeline.measuring import Measuring
from voxadapt.pipeline.speaking import Speaking, load_speaking
from voxadapt.pipeline.tracks import Track, language_track, speaker_track
from voxadapt.scoring.rows import EvalClip, ScoreRow, Sentence, slice_of
from voxadapt.scoring.similarity import SimilarityScale, VoiceReference
from voxadapt.selection import wording
from voxadapt.tools.joining import join_passages
from voxadapt.tools.passages import Passage, read_text, split_passages

SOUND_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}
SHOWN = 5  # passages that a message names
SPLIT = "own"  # what is said here belongs to no split of the corpus


@dataclass(frozen=True)
class Takes:
    """How often every passage of a text is spoken."""

    count: int = 1
    pick: bool = False  # keep the best of each; otherwise one file a take is written
    seed: int = 0  # of the first take's sampling; the next takes follow


def say(
    params: Params,
    text: str | Path,
    output: Path,
    candidate: str | None = None,
    takes: Takes = Takes(),  # frozen
    speaker: str | None = None,
    language: bool = False,
    instruct: str | None = None,
    tag: str | None = None,
) -> StageResult:
    """Speak a text in one go, or a file passage by passage, with the chosen checkpoint or another.

    `language` stands for the candidates of the language's path; `tag` is the language of the text
    where it is not that of the parameters, `instruct` says how to speak (a voice of a CustomVoice
    model). With several takes and no picking there is one file a take.
    """
    track = language_track(params) if language else speaker_track(params)
    if tag is not None:
        tag = model_language(tag) or tag
        asr = track.asr.model_copy(update={"language": whisper_language(tag)})
        track = replace(track, asr=asr, tag=tag)
    passages = _passages(text, track.asr.language)
    _refuse_tokens("--instruct", instruct or "")
    if output.suffix.lower() not in SOUND_FORMATS or output.is_dir():
        found = "a folder" if output.is_dir() else output.suffix or "no suffix"
        facts = {"known": ", ".join(SOUND_FORMATS), "found": found}
        raise user_error("tools.sound_format", f"-o {output}", **facts)
    note = ""
    if candidate is None:
        check_made([track.corpus.decision], params)
        name, confirmed = read_json(track.corpus.decision)["chosen"], track.corpus.confirm
        if confirmed.is_file():
            record = read_record(confirmed, "language confirm" if language else "confirm")
            if record["chosen"] == name:
                check_made([confirmed])
                note = wording.caution(record)
    elif language:
        name = candidate
    else:
        fix = "Name one of them, or add it to params."
        name = check_name(candidate, track.candidates, fix)
    wanted = None if speaker is None else (speaker,)
    who = choose_speakers(track.speakers(), wanted, "--speaker")[0]
    asked = "auto" if language and name == BASE else track.tag
    model = find_candidate(track, name)
    check_weights(model)
    context = open_context(params)
    speaking = next(load_speaking(track, model, (who,), context))
    if instruct:
        speaking = replace(speaking, voice=replace(speaking.voice, instruct=instruct))
    synthesis.check_voice(speaking.tts, speaking.voice, asked)
    reader = _Reader(track, model, speaking, context, asked, takes)
    reference = reader.reference() if takes.pick else None
    reader.speak(passages)
    if reference is not None:
        chosen, gain = reader.pick(passages, *reference)
        written = [reader.write(passages, chosen, output, gain)]
    else:
        written = []
        for take in range(takes.count):
            path = output.with_stem(f"{output.stem}-{take + 1}") if takes.count > 1 else output
            written.append(reader.write(passages, [take] * len(passages), path))
    return StageResult("\n".join(written) + note, output)


def _passages(text: str | Path, language: str) -> list[Passage]:
    """Split a file; leave a text whole; refuse what cannot be spoken."""
    where, whole = ("text", text) if isinstance(text, str) else (str(text), read_text(text))
    if any("\ud800" <= sign <= "\udfff" for sign in whole):  # how Python reads other bytes
        raise user_error("tools.no_text", where)
    _refuse_tokens(where, whole)
    passages = [Passage(whole, "paragraph")]
    if isinstance(text, Path):
        passages = split_passages(whole, language)
    if not any(normalise(passage.text, language) for passage in passages):
        raise user_error("tools.nothing_to_say", where, found=repr(whole[:60]))
    return passages


def _refuse_tokens(where: str, text: str) -> None:
    """Refuse what the model would take for control."""
    if tokens := special_tokens(text):
        raise user_error("tools.special_tokens", where, found=", ".join(tokens[:4]))


@dataclass(frozen=True)
class _Reader:
    """A candidate that speaks passages in one voice; `tag` is the language it is asked for."""

    track: Track
    candidate: Candidate
    speaking: Speaking
    context: Context
    tag: str
    takes: Takes

    @cached_property
    def _folder(self) -> Path:
        """Where passages of this voice are stored."""
        tts, score = self.speaking.tts, self.track.score
        identity = [
            self.candidate.sha, self.speaking.voice.sha, decoding.VERSION, str(tts.model.dtype),
            str(tts.device), synthesis.sampling(score), score.non_streaming_mode, self.tag,
        ]  # fmt: skip
        return self.context.work_dir / "said" / fingerprint(identity)

    def _limit(self, text: str) -> int:
        tts, per_token_s = self.speaking.tts, self.track.score.max_seconds_per_token
        num_tokens = decoding.text_tokens(tts, text)
        return decoding.token_limit(num_tokens, per_token_s, decoding.frame_rate_hz(tts))

    def _path(self, text: str, take: int) -> Path:
        """Name what a passage is stored in by all that decides it besides the voice."""
        key = fingerprint([text, self.takes.seed + take, self._limit(text)])
        return self._folder / f"{key}.npz"

    def _load(self, text: str, take: int) -> synthesis.Spoken | None:
        found = synthesis.load_spoken(self._path(text, take), 1)
        return found[0] if found else None

    def speak(self, passages: Sequence[Passage]) -> None:
        """Speak and store every take of the passages that are not stored yet."""
        lines = dict.fromkeys(passage.text for passage in passages)
        asked = [(text, take) for take in range(self.takes.count) for text in lines]
        waiting = [item for item in asked if self._load(*item) is None]
        progress = Progress(f"Speaking ({self.candidate.name})", len(asked), "passages")
        if len(waiting) < len(asked):
            progress.advance(len(asked) - len(waiting), "stored before")
        size, messages = self.track.score.batch_size, []
        for start in range(0, len(waiting), size):
            part = waiting[start : start + size]
            said = [Sentence(text_id=fingerprint(t), text=t, split=SPLIT) for t, _ in part]
            seeds = tuple(self.takes.seed + take for _, take in part)
            limits = tuple(self._limit(text) for text, _ in part)
            batch = synthesis.Batch(tuple(said), 0, seeds, limits)
            tts, voice = self.speaking.tts, self.speaking.voice
            found = synthesis.speak_batch(tts, batch, voice, self.track.score, self.tag)
            for item, spoken in zip(part, found, strict=True):
                if spoken.samples is None:
                    messages.append(spoken.message)
                else:
                    synthesis.store_spoken(self._path(*item), [spoken])
            progress.advance(len(part))
        if len(messages) == len(asked):
            raise user_error("tools.no_audio", "text", found=messages[0])

    def reference(self) -> tuple[VoiceReference, SimilarityScale]:
        """Read what takes are compared with; refuse it where the `codes` stage has not run."""
        corpus, folder = self.track.corpus, self.speaking.speaker.folder
        voice = references.read_voice(corpus.voice_of(folder))
        return voice, references.read_scale(corpus.scale_of(folder))

    def pick(
        self, passages: Sequence[Passage], voice: VoiceReference, scale: SimilarityScale
    ) -> tuple[list[int], str]:
        """Measure all takes as the pipeline measures; return the best of each, and what it gains.

        The best take is usable, has the fewest errors, then the fewest flags, then the greatest
        similarity to the speaker's recordings.
        """
        root, metric = self._folder, self.track.rule.error_metric
        measuring = Measuring(self.context, self.track.asr, self.track.score, root)
        rows = measuring.rows(self._clips(passages, root), voice, scale)

        def rank(row: ScoreRow) -> tuple[bool, float, int, float, int]:
            error = row.wer_raw if metric == "wer" else row.cer_raw
            return row.failed, error, len(row.flags), -(row.sim or 0.0), row.take

        best: dict[str, ScoreRow] = {}
        for row in rows:
            best[row.text] = min(best.get(row.text, row), row, key=rank)

        def error_of(some: Sequence[ScoreRow]) -> float:
            counts = [row.words if metric == "wer" else row.chars for row in some]
            size = sum(item.reference_units for item in counts)
            return sum(item.capped_edits for item in counts) / size

        first = error_of([row for row in rows if row.take == 0])
        kept = error_of(list(best.values()))
        note = (
            f"The best of {self.takes.count} takes each: {metric.upper()} {kept:.1%}, against "
            f"{first:.1%} of the first takes; {len(best)} passages were measured."
        )
        return [best[p.text].take if p.text in best else 0 for p in passages], note

    def _clips(self, passages: Sequence[Passage], root: Path) -> list[EvalClip]:
        """Write the takes that can be measured as WAVs."""
        language, clips = self.track.asr.language, []
        for text in dict.fromkeys(passage.text for passage in passages):
            if not normalise(text, language):
                continue
            for take in range(self.takes.count):
                spoken = self._load(text, take)
                path = self._path(text, take).with_suffix(".wav")
                if spoken is not None and spoken.samples is not None:
                    write_wav(path, spoken.samples, self._rate_hz)
                clips.append(
                    EvalClip(
                        candidate=self.candidate.name, split=SPLIT, text_id=fingerprint(text),
                        take=take, seed=self.takes.seed + take, lang=language, text=text,
                        slice=slice_of(text, language), wav=path.relative_to(root).as_posix(),
                        hit_max_tokens=spoken is not None and spoken.hit_max_tokens,
                        status="failed" if spoken is None else "ok",
                        message="" if spoken is not None else "the model gave no audio",
                    )
                )  # fmt: skip
        return clips

    def _samples(self, text: str, take: int) -> NDArray[np.int16] | None:
        spoken = self._load(text, take)
        return None if spoken is None else spoken.samples

    @property
    def _rate_hz(self) -> int:
        return int(self.speaking.tts.model.speech_tokenizer.get_output_sample_rate())

    def write(
        self, passages: Sequence[Passage], chosen: Sequence[int], output: Path, gain: str = ""
    ) -> str:
        """Write the chosen take of each passage, a single one as it was spoken; say so."""
        container = SOUND_FORMATS[output.suffix.lower()]
        takes = list(zip(passages, chosen, strict=True))
        cut, silent, only = [], [], None
        for passage, take in takes:  # one of them is in memory at a time
            only = self._load(passage.text, take)
            if only is None:
                silent.append(passage.text)
            elif only.hit_max_tokens:
                cut.append(passage.text)
        if len(takes) == 1 and only is not None and only.samples is not None:
            write_atomic(output, encode(only.samples, self._rate_hz, container))
            length_s = len(only.samples) / self._rate_hz
        else:
            loads = [(partial(self._samples, p.text, take), p.boundary) for p, take in takes]
            length_s = join_passages(output, loads, self._rate_hz, container)
        count = "" if len(passages) == 1 else f", {len(passages)} passages"
        lines = [f"{output}: {length_s:.1f} s by {self.candidate.name}{count}."]
        lines += [gain] if gain else []
        for found, why in (
            (cut, "Cut off, because the model did not end"),
            (silent, "Not spoken, because the model gave no audio"),
        ):
            named = [repr(text if len(text) <= 60 else f"{text[:57]}…") for text in found[:SHOWN]]
            named += [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
            mend = "Another seed, or `--takes 3 --pick`, may mend that."
            lines += [f"{why}: {'; '.join(named)}. {mend}"] if found else []
        return "\n".join(lines)
