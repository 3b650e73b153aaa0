"""How long the stages take on this machine: seconds from a short calibration, sums from the data.

Nothing is assumed of a machine. The token loop is timed with one and with three layers of the
model's width and random weights, the codec, Whisper and the speaker encoder are timed on a few
recordings of the corpus, and a stage is what it does of these, one after another. Generated speech
is expected to be as long as the recording of its sentence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from voxadapt.params import Params, ScoreParams

if TYPE_CHECKING:
    from voxadapt.budget import Clip, Model

PROMPT = 24  # positions before the first frame
SHORT, LONG = 2, 10  # frames of the two runs whose difference is timed
RECORDINGS = 16  # that are heard and coded at most
PATIENCE_S = 1.0  # one recording that takes longer is not heard again in a batch


@dataclass(frozen=True)
class Rates:
    """Seconds on this machine.

    Attributes:
        start_s: Starting a process, importing the libraries and loading what hears and decodes.
        step_s: One frame of the token loop, whatever the number of rows.
        row_s: One frame of one row, in addition.
        decode_s: One frame from codes to sound.
        encode_s: One frame from sound to codes.
        clip_s: Hearing one clip and comparing its voice.
    """

    start_s: float
    step_s: float
    row_s: float
    decode_s: float
    encode_s: float
    clip_s: float

    def tokens_s(self, clips: Sequence[Clip], batch_size: int) -> float:
        """Predict the token loop for one take of sentences; rows leave their batch as they end."""
        frames = sorted(clip.num_frames for clip in clips)
        batches = [frames[at : at + batch_size] for at in range(0, len(frames), batch_size)]
        return sum(self.step_s * batch[-1] + self.row_s * sum(batch) for batch in batches)

    def score_s(self, clips: Sequence[Clip], score: ScoreParams) -> float:
        """Predict scoring one candidate on these sentences, without the start of a process."""
        frames = sum(clip.num_frames for clip in clips)
        speaking_s = self.tokens_s(clips, score.batch_size) + self.decode_s * frames
        return score.takes * (speaking_s + self.clip_s * len(clips))

    def codes_s(self, clips: Sequence[Clip]) -> float:
        """Predict the codes stage: every clip coded; what is held out decoded and heard twice."""
        held_out = [clip for clip in clips if clip.split != "train"]
        decoded = sum(clip.num_frames for clip in held_out)
        return (
            self.start_s
            + self.encode_s * sum(clip.num_frames for clip in clips)
            + self.decode_s * decoded
            + 2 * self.clip_s * len(held_out)
        )


def calibrate(
    model: Model,
    params: Params,
    recordings: Sequence[tuple[Path, str]],
    device: torch.device,
) -> Rates | None:
    """Time what the stages are made of; a minute at most on a CPU with the miniature.

    Args:
        model: Sizes of the talker.
        params: All parameters.
        recordings: Some clips of the corpus and their texts.
        device: Where the stages will run.

    Returns:
        The rates, or None where codec or Whisper are not on this machine yet.

    Raises:
        UserError: When there is a codec or a Whisper model that cannot be read.
    """
    from voxadapt.codec.extract import whole_frames
    from voxadapt.data.audio import read_mono
    from voxadapt.evaluation.asr import Transcriber
    from voxadapt.evaluation.flags import measure_shape
    from voxadapt.evaluation.similarity import Embedder, read_audio
    from voxadapt.model.load import load_speech_tokenizer

    if not (Path(params.model.base).is_dir() and Path(params.asr.model).is_file() and recordings):
        return None
    codec = load_speech_tokenizer(params.model.base, device)
    embedder = Embedder(str(device))
    hearing = Transcriber(
        params.asr.model, params.asr.language, str(device), params.asr.batch_size
    )  # no cache: what was heard once would cost nothing
    start_s = time.process_time()  # of this process: it has just done the same
    chosen = list(recordings)[: min(RECORDINGS, params.asr.batch_size)]

    def hear(clips: Sequence[tuple[Path, str]]) -> None:
        hearing.transcribe([path for path, _ in clips], [text for _, text in clips])
        sounds = [read_audio(path) for path, _ in clips]
        embedder.embed(sounds)
        for wav, rate_hz in sounds:
            measure_shape(wav, rate_hz)

    hear(chosen[:1])
    clip_s = _seconds(lambda: hear(chosen[:1]), device)
    if clip_s < PATIENCE_S and len(chosen) > 1:
        clip_s = _seconds(lambda: hear(chosen), device) / len(chosen)
    rate_hz, hop = codec.get_input_sample_rate(), codec.get_encode_downsample_rate()
    waves = [whole_frames(read_mono(path, rate_hz)[0], hop) for path, _ in chosen[:4]]
    codes = codec.encode(waves, sr=rate_hz).audio_codes
    frames = sum(len(item) for item in codes)
    encode_s = _seconds(lambda: codec.encode(waves, sr=rate_hz), device) / frames
    items = [[{"audio_codes": item}] for item in codes]
    codec.decode(items[0])
    decode_s = _seconds(lambda: [codec.decode(item) for item in items], device) / frames
    step_s, row_s = loop_seconds(model, params.score, device)
    return Rates(start_s, step_s, row_s, decode_s, encode_s, clip_s)


def loop_seconds(model: Model, score: ScoreParams, device: torch.device) -> tuple[float, float]:
    """Time the token loop: a frame whatever the rows, and a frame of one row more."""
    alone, together = (_step_seconds(model, rows, device) for rows in (1, score.batch_size))
    row_s = max(together - alone, 0.0) / max(1, score.batch_size - 1)
    return max(alone - row_s, 0.0), row_s


def _step_seconds(model: Model, rows: int, device: torch.device) -> float:
    """Return the seconds of one frame of a batch, from layers of the model's width."""
    one, more, sub = (_of_layers(model, rows, device, *n) for n in ((1, 1), (3, 1), (1, 3)))
    talker_s, predictor_s = max(more - one, 0.0) / 2, max(sub - one, 0.0) / 2
    return (
        one
        + (model.talker.num_layers - 1) * talker_s
        + (model.predictor.num_layers - 1) * predictor_s
    )


def _of_layers(
    model: Model, rows: int, device: torch.device, talker_layers: int, predictor_layers: int
) -> float:
    """Return the seconds of one frame of a batch by a model of few layers that never ends."""
    from voxadapt.budget import _small
    from voxadapt.model.decoding import forget, generate_codes

    small = _small(model, talker_layers, predictor_layers).to(device).eval()
    width, eos = model.talker.width, model.config.talker_config.codec_eos_token_id
    prompt = torch.randn(rows, PROMPT, width, device=device)
    mask = torch.ones(rows, PROMPT, dtype=torch.long, device=device)
    mask[0, 0] = 0
    sampling = {"temperature": 0.8, "top_k": 30, "top_p": 1.0}
    options: dict[str, Any] = {
        "eos_token_id": eos,
        "suppress_tokens": [eos],
        "do_sample": True,
        "repetition_penalty": 1.05,
        **sampling,
        "subtalker_dosample": True,
        **{f"subtalker_{name}": value for name, value in sampling.items()},
    }

    def run(frames: int) -> None:
        generate_codes(
            small.talker,
            prompt,
            mask,
            prompt[:, :1],
            prompt[:1, :1],
            seeds=range(rows),
            limits=[frames + 1] * rows,
            options=options,
        )

    run(SHORT)
    taken = [min(_seconds(lambda n=n: run(n), device) for _ in range(3)) for n in (SHORT, LONG)]  # type: ignore[misc]
    forget()
    return max(taken[1] - taken[0], 0.0) / (LONG - SHORT)


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Time a call: on a CPU the processor's seconds, which other programs do not lengthen."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start
