"""Whisper on recordings of any length, and on the clips that are cut from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from voxadapt.core.errors import Problem
from voxadapt.core.files import json_or_none, write_json
from voxadapt.core.params import Params
from voxadapt.core.problems import problem, user_error
from voxadapt.core.progress import Progress
from voxadapt.core.provenance import fingerprint
from voxadapt.data.audio import probe, resample
from voxadapt.prepare.init_options import InitOptions
from voxadapt.prepare.segment import Phrase, Window, place_words, speech_spans, windows
from voxadapt.prepare.workspace import Workspace, settings_of

if TYPE_CHECKING:
    from voxadapt.asr.whisper import Transcriber

CACHE = Path(".work") / "init"  # transcripts by content; may be deleted


class LazyTranscriber:
    """A Whisper checkpoint that is loaded when it is first needed.

    Checkpoint, language, window and device are the options', or else those of the parameters.
    """

    def __init__(self, workspace: Workspace, options: InitOptions, params: Params) -> None:
        self._workspace, self._options, self._params = workspace, options, params

    @cached_property
    def _transcriber(self) -> Transcriber:
        from voxadapt.asr.whisper import Transcriber
        from voxadapt.core.device import resolve_device

        folder, options = self._workspace.folder, self._options
        model = options.asr or self._params.asr.model
        model = str(folder / model) if (folder / model).is_file() else model
        device = str(resolve_device(options.device))
        cache = folder / CACHE / "transcripts"
        return Transcriber(model, self._language(), device, cache_dir=cache)

    def _language(self) -> str:
        """Return Whisper's code of the language."""
        name, options = self._workspace.language, self._options
        settings = settings_of(self._workspace, self._params, options)
        code = options.asr_language or settings.get("language.asr_language")
        if code is None and name is not None:
            raise user_error("prepare.whisper_language", "--transcribe", found=name)
        return code or self._params.asr.language

    def transcribe(self, paths: Sequence[Path], texts: Sequence[str]) -> list[str]:
        """Transcribe clips as the audit and the scores do."""
        return [found.text for found in self._transcriber.transcribe(paths, texts)]

    def phrases(self, recording: Path, sha256: str) -> Iterator[Phrase | Problem]:
        """Yield the phrases of a recording in order; a problem where no words are found."""
        window_s = min(self._options.window_s, self._transcriber.window_samples / 16000)
        cache = self._workspace.folder / CACHE / "phrases" / fingerprint(self._transcriber.asr_id)
        total_s = max(1, int(probe(recording).duration_s))
        progress = Progress(f"transcribing {recording.name}", total_s, "s")
        for window in windows(recording, window_s):
            file = cache / f"{sha256[:16]}-{window.start}-{len(window.mono)}.json"
            found = json_or_none(file)
            if found is None:
                phrases, reason = self._window(window)
                found = {"phrases": [asdict(phrase) for phrase in phrases], "problem": reason}
                write_json(file, found)
            if found["problem"] is not None:
                where = f"{recording.name} {window.start_s:.1f}-{window.end_s:.1f} s"
                yield problem("prepare.no_words", where, found=found["problem"])
            yield from (Phrase(**phrase) for phrase in found["phrases"])
            if passed_s := min(int(window.end_s), total_s) - progress.done:
                progress.advance(passed_s)
        if progress.done < total_s:
            progress.advance(total_s - progress.done)

    def _window(self, window: Window) -> tuple[list[Phrase], str | None]:
        """Transcribe one window, and place its words between the pauses.

        Returns:
            Phrases, timed from the beginning of the recording; and why there are none, where
            Whisper's words are not to be trusted.
        """
        spans = speech_spans(window.mono, window.rate_hz)
        if not spans:
            return [], None
        words, problem = self._transcriber.words(resample(window.mono, window.rate_hz, 16000))
        if problem is not None:
            return [], problem
        return [
            Phrase(
                window.start_s + start_s,
                window.start_s + end_s,
                " ".join("".join(word for word, *_ in own).split()),
                float(np.mean([p for *_, p in own])) if own else 0.0,
                is_open=(start_s, end_s) == spans[-1] and not window.is_clean,
            )
            for (start_s, end_s), own in zip(spans, place_words(words, spans), strict=True)
        ], None
