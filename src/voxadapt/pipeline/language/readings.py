"""Stage `language_readings`: have the frozen Base read texts, whose codes Stage 1 learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from voxadapt.core import paths
from voxadapt.core.files import sha256_file, sha256_folder
from voxadapt.core.lineage import check_made, write_made
from voxadapt.core.model_folder import resolve_model
from voxadapt.core.params import LanguageParams, Params, ScoreParams, language_section
from voxadapt.core.paths import LANGUAGE
from voxadapt.core.provenance import fingerprint
from voxadapt.core.records import Record
from voxadapt.core.stage import StageResult, stage
from voxadapt.data.respelling import load_respelling
from voxadapt.generation.decoding import VERSION, frame_rate_hz
from voxadapt.generation.readings import read_aloud
from voxadapt.model.load import load_tts, speaker_vector
from voxadapt.model.stock import Tts
from voxadapt.pipeline.context import Context, open_context
from voxadapt.pipeline.language.reading_store import Readings, ReadText
from voxadapt.pipeline.language.texts import accepted_texts, source_lines
from voxadapt.pipeline.tracks import language_track


@stage("language_readings")
def run(params: Params) -> StageResult:
    """Have the frozen Base read respelled texts of the language, and source sentences."""
    language = language_section(params)
    inputs = [LANGUAGE.made_by_audit, LANGUAGE.made_by_codes]
    check_made(inputs, params)
    readings = read_texts(params, language)
    readings.write(paths.LANGUAGE_READINGS)
    keys = ["model.base", "model.revision"]
    keys += ["language.stage1.readings", "language.stage1.objective"]
    written = [paths.LANGUAGE_READINGS]
    write_made(paths.MADE_BY_READINGS, "language readings", written, inputs, params, keys)
    num_source = sum(text.is_source for text in readings.texts)
    return StageResult(
        f"{len(readings.texts) - num_source} readings of texts in {language.name}, {num_source} in "
        f"{language.source.language}; {sum(map(len, readings.codes.values()))} frames.",
        readings.facts,
    )


def read_texts(params: Params, language: LanguageParams) -> Readings:
    """Have the Base read what the objective of Stage 1 needs.

    `language` is the section with the objective of this run.
    """
    options, source = language.stage1, language.source
    from_audio = options.objective == "audio"
    if options.objective == "rows":
        return Readings()
    utterances = language_track(params).accepted()
    lines = [] if from_audio else accepted_texts()
    repeated = source_lines(params)[1] if options.source_share else []
    if not lines and not repeated:
        return Readings(facts={"num_source_texts": 0})
    reader = _Reader.open(params, utterances[0].ref_audio, source.language)
    texts: list[ReadText] = []
    codes: dict[str, np.ndarray] = {}
    facts: Record = {}
    if not from_audio:
        respelling = load_respelling(language.respelling)
        respelled = [respelling.respell(line.text) for line in lines]
        num_unfinished = 0
        for take in range(options.readings):
            for line, codes_NK in zip(
                lines, reader.read(respelled, options.seed + take), strict=True
            ):
                if codes_NK is None:
                    num_unfinished += 1
                    continue
                name = f"{line.id}#{take}"
                texts.append(ReadText(name, line.text, language.name))
                codes[name] = codes_NK
        facts["texts"] = {"num_texts": len(respelled), "num_unfinished": num_unfinished}
    num_train = len(texts) + from_audio * sum(row.split == "train" for row in utterances)
    wanted = round(options.source_share / max(1e-9, 1 - options.source_share) * num_train)
    repeated = repeated[:wanted]
    if repeated:
        spoken = reader.read([line.text for line in repeated], options.seed)
        for line, codes_NK in zip(repeated, spoken, strict=True):
            if codes_NK is not None:
                texts.append(ReadText(line.id, line.text, source.language, is_source=True))
                codes[line.id] = codes_NK
    facts["num_source_texts"] = sum(text.is_source for text in texts)
    if options.source_share and len(repeated) < wanted:
        facts["source_texts_missing"] = wanted - len(repeated)
    return Readings(tuple(texts), codes, facts)


@dataclass(frozen=True)
class _Reader:
    """The frozen Base with the voice of the reference clip."""

    tts: Tts  # the Base
    load: Callable[[], Tts]  # loads it in a worker
    vector: Tensor  # speaker vector `[D]`
    language: str  # language that the Base is told
    score: ScoreParams  # sampling parameters
    context: Context  # where it runs
    identity: Sequence[str]  # what decides the readings beside texts and sampling

    @classmethod
    def open(cls, params: Params, ref_audio: str, language: str) -> _Reader:
        """Load the Base, and the voice of a recording."""
        context, path = open_context(params), resolve_model(params.model)
        load = partial(load_tts, path, attention=params.model.attention, as_base=True)
        tts = load(device=context.device)
        identity = [language, sha256_file(ref_audio), sha256_folder(path)]
        vector, load = speaker_vector(tts, ref_audio), partial(load, device=context.worker_device)
        return cls(tts, load, vector, language, params.score, context, identity)

    def read(self, texts: Sequence[str], seed: int) -> list[np.ndarray | None]:
        """Read texts; return codes `[N, K]` each, None where reading did not end.

        Readings are kept in the work folder, batch by batch, in one folder for each set of texts.
        """
        score = self.score
        sampling: dict[str, Any] = {
            "temperature": score.temperature,
            "top_k": score.top_k,
            "top_p": score.top_p,
            "repetition_penalty": score.repetition_penalty,
            "seed": seed,
            "batch_size": score.batch_size,
            "max_seconds_per_token": score.max_seconds_per_token,
        }
        identity = [VERSION, sampling, list(texts), *self.identity]
        readings = read_aloud(
            self.tts,
            texts,
            self.vector,
            self.language,
            **sampling,
            frames_per_s=frame_rate_hz(self.tts),
            work_dir=self.context.work_dir / "readings" / fingerprint(identity),
            executor=self.context.executor,
            load=self.load,
        )
        return [
            np.asarray(reading.codes, dtype=np.int64)
            if reading.ended and reading.codes is not None and len(reading.codes)
            else None
            for reading in readings
        ]
