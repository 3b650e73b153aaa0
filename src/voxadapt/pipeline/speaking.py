"""Loading candidates and the voices that they speak with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from voxadapt.core import paths
from voxadapt.core.locks import file_lock
from voxadapt.core.paths import LANGUAGE
from voxadapt.core.problems import user_error
from voxadapt.core.records import read_record
from voxadapt.data.speakers import Speaker
from voxadapt.generation.synthesis import Prompt, Voice, clone_voice
from voxadapt.model.delta import materialise
from voxadapt.model.load import load_tts, speaking_dtype
from voxadapt.pipeline.candidates import BASE, Candidate, kept_speakers
from voxadapt.pipeline.context import Context
from voxadapt.pipeline.tracks import Track

if TYPE_CHECKING:
    from qwen_tts import Qwen3TTSModel


@dataclass(frozen=True)
class Speaking:
    """A loaded candidate that speaks as one of the speakers."""

    speaker: Speaker  # whose voice it is
    tts: Qwen3TTSModel  # the model
    voice: Voice  # a speaker's name, or a cloning prompt
    load: Callable[[str], Qwen3TTSModel]  # how a worker elsewhere loads the model to a device


def load_speaking(
    track: Track, candidate: Candidate, speakers: Sequence[Speaker], context: Context
) -> Iterator[Speaking]:
    """Load a candidate; yield it with the voice of each speaker.

    An adapted speaker model speaks by name. The Base speaks by name for speakers that it has
    already and clones the others; a language's candidates are Base models, and clone.

    Raises:
        UserError: When several speakers would be cloned by the transcript of one reference clip.
    """
    cloned = _cloned(track, candidate, speakers)
    prompt = chosen_prompt(track) if cloned else "x_vector"
    if cloned and speakers[0].is_named and track.score.base_prompt != "x_vector":
        found = track.score.base_prompt
        raise user_error("pipeline.several_cloned", "score.base_prompt", found=found)
    by_name = [who for who in speakers if who not in cloned]
    for clones, members in ((False, by_name), (True, cloned)):
        if not members:
            continue
        as_base = clones and track.corpus is not LANGUAGE  # an earlier checkpoint can be the Base
        load = partial(_load, candidate, track, as_base, context.work_dir)
        tts = load(str(context.device))
        for who in members:
            voice = Voice(speaker=who.name)
            if clones:
                text = reference_text(track, who.ref_audio)
                voice = clone_voice(tts, who.ref_audio, text, prompt)
            yield Speaking(who, tts, voice, load)
        del tts


def chosen_prompt(track: Track) -> Prompt:
    """Name how the Base clones: as the parameters say; of both, as it was scored better.

    Raises:
        UserError: When neither was scored.
    """
    if track.score.base_prompt != "both":
        return track.score.base_prompt
    found = read_record(paths.SCORES / BASE / "summary.json", "score base").get("base_prompt")
    if found is None:
        raise user_error("pipeline.one_prompt", "score.base_prompt: both")
    chosen: Prompt = found["chosen"]
    return chosen


def reference_text(track: Track, audio: str) -> str | None:
    """Return the transcript of a reference clip: the parameters', or that of the clip's own row."""
    return track.data.ref_text or next(
        (row.text for row in track.accepted() if row.audio == audio), None
    )


def _cloned(track: Track, candidate: Candidate, speakers: Sequence[Speaker]) -> list[Speaker]:
    """List the speakers whose voice is cloned from their reference clip."""
    if track.corpus is LANGUAGE:
        return list(speakers)
    if candidate.name != BASE:
        return []
    kept = kept_speakers(track.model, speakers)
    return [who for who in speakers if who.name not in kept]


def _load(
    candidate: Candidate, track: Track, as_base: bool, work_dir: Path, device: str
) -> Qwen3TTSModel:
    """Load a candidate; a delta by way of a folder that is removed again."""
    dtype = speaking_dtype(track.score.dtype, torch.device(device))
    attention = track.model.attention
    if candidate.delta is None:
        return load_tts(candidate.folder, device, dtype, attention, as_base=as_base)
    folder = work_dir / "materialised" / candidate.sha[:16]
    with file_lock(work_dir / "locks", f"materialised-{folder.name}"):
        shutil.rmtree(folder, ignore_errors=True)  # half of one, if a run was killed here
        materialise(candidate.base, candidate.delta, folder)
        tts = load_tts(folder, device, dtype, attention)
        shutil.rmtree(folder)  # it is in memory now; an epoch of 1.7B would take 4 GB of disk
    return tts
