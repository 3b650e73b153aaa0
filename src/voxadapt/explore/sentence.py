"""A sentence of one's own, spoken by several checkpoints and measured as the pipeline measures.

The clips lie in the work folder, which neither git nor DVC sees; repeating a cell speaks nothing
twice. No decision rests on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas
import torch
from markupsafe import Markup

from voxadapt.asr.normalise import normalise
from voxadapt.core import paths
from voxadapt.core.errors import raise_problems
from voxadapt.core.files import sha256_folder
from voxadapt.core.params import Params
from voxadapt.core.paths import SPEAKER
from voxadapt.core.problems import problem
from voxadapt.core.provenance import fingerprint
from voxadapt.core.templating import new_environment
from voxadapt.data.speakers import Speaker, choose_speakers
from voxadapt.data.text import special_tokens
from voxadapt.explore.project import find_candidate, require_files
from voxadapt.generation.synthesis import Voice, clone_voice, speak_candidate
from voxadapt.model.load import load_tts, speaking_dtype
from voxadapt.model.stock import Tts
from voxadapt.pipeline.candidates import BASE, speakers_of_model
from voxadapt.pipeline.context import open_context
from voxadapt.pipeline.measuring import Measuring
from voxadapt.pipeline.references import read_scale, read_voice
from voxadapt.pipeline.speaking import chosen_prompt, reference_text
from voxadapt.pipeline.tracks import Track, speaker_track
from voxadapt.reporting.players import Html, diff_html, player, read_sound
from voxadapt.reporting.tables import NONE, frame, number, percent, title
from voxadapt.scoring.rows import ScoreRow, Sentence
from voxadapt.scoring.similarity import SimilarityScale

SPLIT = "own"  # what is said here belongs to no split of the corpus
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class SpokenSentence:
    """What candidates said of one text, and what was measured."""

    names: tuple[str, ...]  # in the order that they were asked for
    rows: tuple[ScoreRow, ...]  # one a candidate and take
    scale: SimilarityScale
    folder: Path  # what the rows' `wav` is relative to

    def of(self, name: str) -> list[ScoreRow]:
        """Return the rows of one candidate, in the order of the takes."""
        return [row for row in self.rows if row.candidate == name]

    def players(self) -> Html:
        """Lay the candidates side by side, a line a take: player, spectrogram, what was heard."""
        takes = zip(*(self.of(name) for name in self.names), strict=True)
        lines = [[self._cell(row) for row in line] for line in takes]
        page = new_environment(TEMPLATES).get_template("takes.html.j2")
        names = [title(name) for name in self.names]
        return Html(page.render(names=names, lines=lines, percent=percent, number=number))

    def _cell(self, row: ScoreRow) -> tuple[ScoreRow, Markup, str | None, Markup]:
        """Return what a cell shows: player, spectrogram, what was said and heard."""
        path = self.folder / row.wav if row.wav else None
        sound = read_sound(path) if path else None
        label = f"{title(row.candidate)}, take {row.take + 1}"
        said = diff_html(row.text_norm, row.hyp_norm)
        picture = None if sound is None else sound.mel_uri
        return row, Markup(player(path, label)), picture, Markup(said)

    def table(self) -> pandas.DataFrame:
        """Show every take in figures; similarity also as a share of the way to the ceiling."""
        return frame(
            [
                {
                    "candidate": title(row.candidate),
                    "take": row.take + 1,
                    "WER": percent(row.wer, 0),
                    "CER": percent(row.cer, 0),
                    "similarity": number(row.sim),
                    "from floor (0) to ceiling (1)": number(self.scale.normalise(row.sim), 2),
                    "seconds": number(row.duration_s, 1),
                    "spoken / expected": number(row.dur_ratio, 2),
                    "flags": ", ".join(row.flags).replace("_", " ") or NONE,
                    "heard": row.hyp,
                }
                for name in self.names
                for row in self.of(name)
            ],
            "candidate",
        )

    def lost_words(self) -> pandas.DataFrame:
        """Show the words of the text that were not heard in every take: in how many they were."""
        heard = {name: [set(row.hyp_norm.split()) for row in self.of(name)] for name in self.names}
        rows = []
        for word in dict.fromkeys(self.rows[0].text_norm.split()):
            counts = {name: sum(word in take for take in takes) for name, takes in heard.items()}
            if any(count < len(heard[name]) for name, count in counts.items()):
                shares = {title(n): f"{count} of {len(heard[n])}" for n, count in counts.items()}
                rows.append({"word": word, **shares})
        none = {"word": "none was lost", **dict.fromkeys(map(title, self.names), NONE)}
        return frame(rows or [none], "word")


def speak(
    params: Params,
    text: str,
    candidates: Sequence[str | int],
    takes: int = 2,
    seed: int | None = None,
    speaker: str | None = None,
) -> SpokenSentence:
    """Synthesise a text with several candidates and the same random numbers, and measure the clips.

    Whisper transcribes; similarity is that to the speaker's held-out recordings. All of it as in
    the pipeline, so that the figures may be held against the report's. Candidates are named as
    for `find_candidate`; without a seed it is that of `score.seed`. The speaker is one of several;
    None: the first.
    """
    problems = []
    if not normalise(text, params.asr.language):
        problems.append(problem("explore.nothing_to_say", "text", found=repr(text)))
    if tokens := special_tokens(text):
        problems.append(problem("explore.special_tokens", "text", found=", ".join(tokens[:4])))
    if takes < 1:
        problems.append(problem("explore.no_takes", "takes", found=takes))
    raise_problems(problems, "Nothing was said.")
    require_files({SPEAKER.manifest: "audit", SPEAKER.scale: "codes"})
    track = speaker_track(params)
    who = choose_speakers(track.speakers(), None if speaker is None else (speaker,), "speaker")[0]
    folders = dict(find_candidate(params, candidate) for candidate in candidates)
    changed = {"takes": takes} | ({} if seed is None else {"seed": seed})
    score = params.score.model_copy(update=changed)
    sentence = Sentence(text_id=f"own-{fingerprint(text, 8)}", text=text, split=SPLIT)
    place = paths.work_dir() / "exploring" / f"{sentence.text_id}-{score.seed}"
    context, clips = open_context(params), []
    for name, folder in folders.items():
        clones = name == BASE and who.name.lower() not in speakers_of_model(folder)
        tts, voice = _load(track, who, folder, context.device, clones)
        clips += speak_candidate(
            tts, name, [sentence], voice, score, out_dir=place / name,
            work_dir=paths.work_dir() / "speech", root=place, checkpoint_sha=sha256_folder(folder),
            lang=params.asr.language, language=params.train.language,
        )  # fmt: skip
        del tts
    scale = read_scale(SPEAKER.scale_of(who.folder))
    measuring = Measuring(context, params.asr, score, place)
    rows = measuring.rows(clips, read_voice(SPEAKER.voice_of(who.folder)), scale)
    return SpokenSentence(tuple(folders), tuple(rows), scale, place)


def _load(
    track: Track, who: Speaker, folder: Path, device: torch.device, clones: bool
) -> tuple[Tts, Voice]:
    """Load a checkpoint and the voice that it speaks with: its own, or that of the reference."""
    dtype = speaking_dtype(track.score.dtype, device)
    tts = load_tts(folder, device, dtype, track.model.attention, as_base=clones)
    if tts.model.tts_model_type != "base":
        return tts, Voice(speaker=who.name)
    text, prompt = reference_text(track, who.ref_audio), chosen_prompt(track)
    return tts, clone_voice(tts, who.ref_audio, text, prompt)
