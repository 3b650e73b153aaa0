"""How long the stages take on this machine: seconds from a short calibration, sums from the data.

Nothing is assumed of a machine. What a stage does before its first clip is done once in a process
of its own; the token loop is timed with one and with three layers of the model's width and random
weights, and so is training; the codec, Whisper and the speaker encoder are timed on a few
recordings of the corpus. A stage is what it does of these, one after another. Generated speech is
expected to be as long as the recording of its sentence.

A single thread on a CPU is timed by the processor's seconds, which other programs hardly lengthen;
several threads and CUDA devices by the clock on the wall.

Shape legend: K codebooks.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from voxadapt.core import paths
from voxadapt.core.compat import import_qwen_tts, keep_freed_memory, return_freed_memory
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.params import Params, ScoreParams, TrainParams
from voxadapt.generation.decoding import SHRINK_AT
from voxadapt.model.load import speaking_dtype
from voxadapt.tools.sizes import (
    FRAME_RATE_HZ,
    BatchShape,
    Clip,
    Model,
    batch_of,
    precision_of,
    small_batch,
    small_model,
    text_rows,
)
from voxadapt.training.batches import epoch_windows
from voxadapt.training.occurring import TEXT_EMBEDDING

PROMPT = 24  # positions before the first frame, where nothing is known of the sentences
SHORT, LONG = 2, 10  # frames of the two runs whose difference is timed
RECORDINGS = 16  # that are heard and coded at most
PATIENCE_S = 1.0  # what takes longer is not done again
MOST = 8  # times that a step is taken; the first is not counted
_LAYERS = ((1, 1), (3, 1), (1, 3))  # of talker and code predictor, in the models that are timed


Times = dict[str, float]  # seconds by what they go to


@dataclass(frozen=True)
class Starts:
    """What a process does before the first clip, in seconds.

    Attributes:
        begin_s: Starting it, with what every stage imports.
        hearing_begin_s: What the audit imports, and the end of its process.
        learning_begin_s: What training imports, and the end of its process.
        speaking_begin_s: What is imported to speak, code and score, and the end of the process.
        codec_s: Loading the codec.
        model_s: Reading the model folder once for its hash, and loading it.
        clone_s: Making the Base's voice from a recording, for the first time.
        whisper_s: Loading Whisper; the first clip takes longer than others, and is in it.
        voice_s: The same of the speaker encoder.
    """

    begin_s: float
    hearing_begin_s: float
    learning_begin_s: float
    speaking_begin_s: float
    codec_s: float
    model_s: float
    clone_s: float
    whisper_s: float
    voice_s: float

    def times(self, stage: Literal["audit", "codes", "train", "score"]) -> Times:
        """Return the seconds of a stage's start."""
        imports = {
            "audit": self.hearing_begin_s,
            "codes": self.speaking_begin_s,
            "train": self.learning_begin_s,
            "score": self.speaking_begin_s,
        }
        loads = {
            "audit": self.whisper_s,
            "codes": self.codec_s + self.whisper_s + self.voice_s,
            "train": self.model_s,
            "score": self.model_s + self.whisper_s + self.voice_s,
        }
        return {"process": self.begin_s + imports[stage], "loading": loads[stage]}


@dataclass(frozen=True)
class Loop:
    """Seconds of the token loop.

    Attributes:
        step_s: One frame, whatever the number of rows.
        row_s: One frame of one row, in addition.
        fill_s: Reading a batch's prompts, whatever the number of rows.
        fill_row_s: Reading the prompt of one row, in addition.
    """

    step_s: float
    row_s: float
    fill_s: float
    fill_row_s: float

    def batch_s(self, frames: Sequence[int]) -> float:
        """Predict a batch; rows that have ended leave it once they are many."""
        ends = sorted(frames)
        active, total = len(ends), self.fill_s + self.fill_row_s * len(ends)
        done = since = 0
        for end in ends:
            total += (end - since) * (self.step_s + self.row_s * active)
            done, since = done + 1, end
            if len(ends) - done <= SHRINK_AT * active:
                active = len(ends) - done
        return total


@dataclass(frozen=True)
class Rates:
    """Seconds on this machine.

    Attributes:
        start: What a process does before the first clip.
        loop: The token loop.
        decode_s: One frame from codes to sound, clip by clip.
        round_s: The same in the round trip, whose memory is fresh.
        encode_s: One frame from a file's sound to codes.
        hear_s: Hearing one clip.
        voice_s: Comparing the voice of one frame of sound, with its silences and loudness.
        check_s: The audit's look at one clip.
    """

    start: Starts
    loop: Loop
    decode_s: float
    round_s: float
    encode_s: float
    hear_s: float
    voice_s: float
    check_s: float

    def tokens_s(self, clips: Sequence[Clip], batch_size: int) -> float:
        """Predict the token loop for one take of sentences: about equal batches, by length."""
        ordered = sorted(clips, key=lambda clip: clip.num_text_tokens)
        count = -(-len(ordered) // batch_size)
        edges = [round(len(ordered) * number / max(1, count)) for number in range(count + 1)]
        return sum(
            self.loop.batch_s([clip.num_frames for clip in ordered[start:stop]])
            for start, stop in itertools.pairwise(edges)
        )

    def audit_times(self, clips: Sequence[Clip]) -> Times:
        """Predict the audit: every clip measured and heard."""
        return {
            **self.start.times("audit"),
            "checks": self.check_s * len(clips),
            "hearing": self.hear_s * len(clips),
        }

    def codes_times(self, clips: Sequence[Clip], other_frames: int = 0) -> Times:
        """Predict the codes stage: every clip coded; what is held out decoded, heard and compared.

        The audit has heard the recordings, and what Whisper heard is kept.

        Args:
            clips: The corpus.
            other_frames: Frames of the other voices' recordings.
        """
        held_out = [clip for clip in clips if clip.split != "train"]
        frames = sum(clip.num_frames for clip in held_out)
        from voxadapt.scoring.similarity import DURATIONS_S

        cut = sum(
            min(clip.num_frames, seconds * FRAME_RATE_HZ)
            for clip in held_out
            for seconds in DURATIONS_S
            if clip.num_frames >= seconds * FRAME_RATE_HZ
        )
        # once for the scale, once each as recording and through the codec
        compared = 3 * frames + cut + other_frames
        return {
            **self.start.times("codes"),
            "codes": self.encode_s * sum(clip.num_frames for clip in clips),
            "round trip": self.round_s * frames,
            "hearing": self.hear_s * len(held_out),
            "voices": self.voice_s * compared,
        }

    def score_times(self, clips: Sequence[Clip], score: ScoreParams) -> Times:
        """Predict scoring one candidate on these sentences, without the start of a process."""
        frames = sum(clip.num_frames for clip in clips)
        return {
            "speaking": score.takes * self.tokens_s(clips, score.batch_size),
            "sound": score.takes * self.decode_s * frames,
            "hearing": score.takes * self.hear_s * len(clips),
            "voices": score.takes * self.voice_s * frames,
        }


def added(*many: Times, times: float = 1.0) -> Times:
    """Add seconds part by part, and multiply them."""
    names = dict.fromkeys(name for one in many for name in one)
    return {name: times * sum(one.get(name, 0.0) for one in many) for name in names}


def calibrate(
    model: Model,
    params: Params,
    recordings: Sequence[tuple[Path, str]],
    device: torch.device,
    prompt: int = PROMPT,
) -> Rates | None:
    """Time what the stages are made of; a minute at most on a CPU with the miniature.

    Args:
        model: Sizes of the talker.
        params: All parameters.
        recordings: Some clips of the corpus and their texts.
        device: Where the stages will run.
        prompt: Positions that a frame of a sentence has before it, on average.

    Returns:
        The rates, or None where model or Whisper are not on this machine yet.

    Raises:
        UserError: When there is a codec or a Whisper model that cannot be read.
    """
    from voxadapt.asr.whisper import Transcriber
    from voxadapt.codec.extract import CPU_BATCH_S, _split, decode_codes, whole_frames
    from voxadapt.data.audio import decode, measure, probe, read_mono
    from voxadapt.model.load import load_speech_tokenizer
    from voxadapt.scoring.similarity import Embedder

    if not (Path(params.model.base).is_dir() and Path(params.asr.model).is_file() and recordings):
        return None
    codec = load_speech_tokenizer(params.model.base, device)
    embedder = Embedder(str(device))
    hearing = Transcriber(
        params.asr.model, params.asr.language, str(device), params.asr.batch_size
    )  # no cache: what was heard once would cost nothing
    chosen = list(recordings)[: min(RECORDINGS, params.asr.batch_size)]

    def hear(clips: Sequence[tuple[Path, str]]) -> None:
        hearing.transcribe([path for path, _ in clips], [text for _, text in clips])

    hear(chosen[:1])
    hear_s = seconds_of(lambda: hear(chosen[:1]), device)
    if hear_s < PATIENCE_S and len(chosen) > 1:
        hear_s = seconds_of(lambda: hear(chosen), device) / len(chosen)
    compare(embedder, chosen[:1])
    voice_s = seconds_of(lambda: compare(embedder, chosen), device)
    heard_frames = sum(probe(path).duration_s for path, _ in chosen) * FRAME_RATE_HZ
    check_s = seconds_of(lambda: [measure(*decode(path)) for path, _ in chosen], device)
    rate_hz, hop = codec.get_input_sample_rate(), codec.get_encode_downsample_rate()
    longest_s = params.codes.batch_seconds
    if device.type == "cpu":
        longest_s = min(longest_s, CPU_BATCH_S)

    def encode(clips: Sequence[tuple[Path, str]]) -> list[Any]:
        waves = [whole_frames(read_mono(path, rate_hz)[0], hop) for path, _ in clips]
        waves.sort(key=len)
        batches = _split(waves, [len(wave) / rate_hz for wave in waves], longest_s)
        return [item for b in batches for item in codec.encode(b, sr=rate_hz).audio_codes]

    first_s = seconds_of(lambda: encode(chosen[:1]), device)
    coded = chosen if first_s < PATIENCE_S else chosen[:4]
    taken: list[Any] = []
    encode_s = seconds_of(lambda: taken.extend(encode(coded)), device)
    arrays = {str(n): item.cpu().numpy() for n, item in enumerate(taken)}
    frames = sum(map(len, taken))
    round_s = seconds_of(lambda: decode_codes(arrays, codec), device)  # with its fresh memory
    items = [[{"audio_codes": item}] for item in taken]
    decode_s = seconds_of(lambda: [codec.decode(item) for item in items], device)
    return Rates(
        begin(params, chosen[0], device),
        measure_loop(model, params.score, device, prompt),
        decode_s / frames,
        round_s / frames,
        encode_s / frames,
        hear_s,
        voice_s / heard_frames,
        check_s / len(chosen),
    )


def begin(params: Params, recording: tuple[Path, str], device: torch.device) -> Starts:
    """Time what stages do before their first clip, in processes that do just that.

    Args:
        params: All parameters.
        recording: A clip of the corpus and its text.
        device: Where the stages will run.
    """
    request = {
        "base": params.model.base,
        "attention": params.model.attention,
        "asr": [params.asr.model, params.asr.language, str(device), params.asr.batch_size],
        "device": str(device),
        "threads": torch.get_num_threads(),
        "recording": [str(recording[0]), recording[1]],
    }

    def ask(*steps: str) -> dict[str, float]:
        began = time.monotonic(), _of_children()
        given = json.dumps({**request, "steps": steps, "began": began[0]})
        command = [sys.executable, "-c", _START, given]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode:
            said = answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"]
            raise UserError(
                Problem(
                    "the start of a stage, which `voxadapt plan` times",
                    "a process that loads models and ends",
                    said[-1][:300],
                    "See `voxadapt doctor`; `voxadapt plan --no-measure` predicts memory alone.",
                )
            )
        found = json.loads(answer.stdout.splitlines()[-1])
        alone = clock_of(device) is time.process_time
        whole = _of_children() - began[1] if alone else time.monotonic() - began[0]
        return {**found, "end": max(whole - sum(found.values()), 0.0)}

    audit = ask("libraries", "hearing")
    others = ask(
        "libraries", "learning", "speaking", "codec", "model", "cloning", "whisper", "voice"
    )
    learning_s = others["learning"] + others["end"]
    return Starts(
        begin_s=others["libraries"],
        hearing_begin_s=audit["hearing"] + audit["end"],
        learning_begin_s=learning_s,
        speaking_begin_s=learning_s + others["speaking"],
        codec_s=others["codec"],
        model_s=others["model"],
        clone_s=others["cloning"],
        whisper_s=others["whisper"],
        voice_s=others["voice"],
    )


def _of_children() -> float:
    """Return the processor seconds of all processes that this one has waited for."""
    times = os.times()
    return times.children_user + times.children_system


#: A verb's process: the libraries that all stages import, then the steps of one.
_START = (
    "import sys, voxadapt.cli.app, voxadapt.pipeline.score\n"
    "from voxadapt.tools.timing import take_steps\n"
    "take_steps(sys.argv[1])"
)


def take_steps(request: str) -> None:
    """In a process of its own: take the steps of a start and print what each took, as JSON."""
    given = json.loads(request)
    device = torch.device(given["device"])
    torch.set_num_threads(given["threads"])
    now = clock_of(device)
    since = 0.0 if now is time.process_time else now() - (time.monotonic() - given["began"])
    path, text = given["recording"]
    steps: dict[str, Callable[[], Any]] = {
        "libraries": lambda: None,
        "hearing": lambda: import_module("voxadapt.asr.whisper"),
        "learning": lambda: (import_qwen_tts(), import_module("voxadapt.training.trainer")),
        "speaking": lambda: [import_module(f"voxadapt.{name}") for name in _SPEAKING],
        "codec": lambda: _load_codec(given["base"], device),
        "model": lambda: _load_model(given["base"], device, given["attention"]),
        "cloning": lambda: _clone(kept[-1], path),
        "whisper": lambda: _first_heard(given["asr"], path, text),
        "voice": lambda: _first_compared(given["device"], path, text),
    }
    found: dict[str, float] = {}
    kept: list[Any] = []  # as a stage keeps what it has loaded
    for name in given["steps"]:
        kept.append(steps[name]())
        found[name] = now() - since
        since += found[name]
    print(json.dumps(found))


_SPEAKING = ("evaluation.scoring", "evaluation.synthesis", "codec.extract", "reporting.tables")


def _load_codec(base: str, device: torch.device) -> Any:
    from voxadapt.model.load import load_speech_tokenizer

    return load_speech_tokenizer(base, device)


def _load_model(base: str, device: torch.device, attention: str) -> Any:
    from voxadapt.core.files import sha256_folder
    from voxadapt.model.load import load_tts

    sha256_folder(base)
    return load_tts(base, device, attention=attention, as_base=True)


def _clone(tts: Any, path: str) -> Any:
    from voxadapt.generation.synthesis import clone_voice

    return clone_voice(tts, path, None, "x_vector")


def _first_heard(asr: Sequence[Any], path: str, text: str) -> Any:
    from voxadapt.asr.whisper import Transcriber

    transcriber = Transcriber(*asr)
    transcriber.transcribe([path], [text])
    return transcriber


def _first_compared(device: str, path: str, text: str) -> Any:
    from voxadapt.scoring.similarity import Embedder

    embedder = Embedder(device)
    compare(embedder, [(Path(path), text)])
    return embedder


def compare(embedder: Any, clips: Sequence[tuple[Path, str]]) -> None:
    """Measure what scoring measures of clips besides their words."""
    from voxadapt.data.audio import read_audio
    from voxadapt.scoring.flags import measure_shape

    sounds = [read_audio(path) for path, _ in clips]
    embedder.embed(sounds)
    for wav, rate_hz in sounds:
        measure_shape(wav, rate_hz)


def measure_loop(
    model: Model, score: ScoreParams, device: torch.device, prompt: int = PROMPT
) -> Loop:
    """Time the token loop with one row and with a whole batch.

    Args:
        model: Whose widths are taken.
        score: Rows of a batch.
        device: Where.
        prompt: Positions before the first frame.
    """
    dtype = speaking_dtype(score.dtype, device)
    alone, together = (
        _loop_of(model, rows, device, dtype, prompt) for rows in (1, score.batch_size)
    )
    more = max(1, score.batch_size - 1)
    row_s, fill_row_s = (max(b - a, 0.0) / more for a, b in zip(alone, together, strict=True))
    return Loop(max(alone[0] - row_s, 0.0), row_s, max(alone[1] - fill_row_s, 0.0), fill_row_s)


def _loop_of(
    model: Model, rows: int, device: torch.device, dtype: torch.dtype, prompt: int
) -> tuple[float, float]:
    """Return the seconds of one frame of a batch, and of its prompts."""
    found = [_of_layers(model, rows, device, dtype, prompt, *layers) for layers in _LAYERS]
    sums = []
    for one, more, sub in zip(*found, strict=True):
        talker_s, predictor_s = max(more - one, 0.0) / 2, max(sub - one, 0.0) / 2
        sums.append(
            one
            + (model.talker.num_layers - 1) * talker_s
            + (model.predictor.num_layers - 1) * predictor_s
        )
    return sums[0], sums[1]


def _of_layers(
    model: Model,
    rows: int,
    device: torch.device,
    dtype: torch.dtype,
    prompt_length: int,
    talker_layers: int,
    predictor_layers: int,
) -> tuple[float, float]:
    """Let a model of few layers speak without end; return a frame's seconds and the prompts'."""
    from voxadapt.generation.decoding import forget, generate_codes

    small = small_model(model, talker_layers, predictor_layers).to(device, dtype).eval()
    width, eos = model.talker.width, model.config.talker_config.codec_eos_token_id
    size = model.config.talker_config.vocab_size
    prompt = torch.randn(rows, prompt_length, width, device=device, dtype=dtype)
    mask = torch.ones(rows, prompt_length, dtype=torch.long, device=device)
    mask[0, 0] = 0
    sampling = {"temperature": 0.8, "top_k": 30, "top_p": 1.0}
    options: dict[str, Any] = {
        "eos_token_id": eos,
        "suppress_tokens": range(size - 1024, size),  # the end too: it speaks without end
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
    short, long = (
        median(seconds_of(partial(run, frames), device) for _ in range(3))
        for frames in (SHORT, LONG)
    )
    forget()
    frame_s = max(long - short, 0.0) / (LONG - SHORT)
    return frame_s, max(short - SHORT * frame_s, 0.0)


# --- training ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pass:
    """What one pass over a batch takes, measured with layers of the model's width.

    Attributes:
        talker_s: One talker layer, for one position.
        predictor_s: One layer of the code predictor, for one of a frame's K positions.
        rest_s: All that is outside the layers, for one frame.
    """

    talker_s: float
    predictor_s: float
    rest_s: float

    def batch_s(self, model: Model, shape: BatchShape) -> float:
        """Predict the seconds of a batch."""
        K = model.config.talker_config.num_code_groups
        talker = self.talker_s * model.talker.num_layers * shape.num_rows * shape.length
        predictor = self.predictor_s * model.predictor.num_layers * K * shape.num_frames
        return talker + predictor + self.rest_s * shape.num_frames


@dataclass(frozen=True)
class Speed:
    """What training takes on a device.

    Attributes:
        learning: Forward and back, layers computed twice where they are checkpointed.
        listening: Forward alone, for the held-out loss.
        update_s: Clipping and one step of the optimizer, for one weight.
        clearing_s: Making the gradient of an embedding that is trained as a whole, for one weight.
        export_s: A checkpoint's file, for one weight of the model.
        state_s: How far it has moved and what a resumed run needs, for one weight that is trained.
    """

    learning: Pass
    listening: Pass
    update_s: float
    clearing_s: float
    export_s: float
    state_s: float


def training_seconds(
    model: Model, train: TrainParams, clips: Sequence[Clip], device: torch.device
) -> float:
    """Predict the seconds of the steps of one epoch, layers being timed on the device.

    Args:
        model: What is trained.
        train: `train` section.
        clips: What is learnt.
        device: Where.
    """
    return steps_s(model, train, clips, measure_speed(model, train, clips, device))


def steps_s(model: Model, train: TrainParams, clips: Sequence[Clip], speed: Speed) -> float:
    """Predict the seconds of the steps of one epoch, their updates included."""
    windows = _windows(train, clips)
    shapes = [batch_of([clips[i] for i in at]) for window in windows for at in window]
    passes = sum(speed.learning.batch_s(model, shape) for shape in shapes)
    held = model.updated(precision_of(train) != "bfloat16", text_rows(clips))
    whole = model.counts[TEXT_EMBEDDING][0]
    cleared = len(shapes) * whole * (held.get(TEXT_EMBEDDING) == whole)
    updated = len(windows) * sum(held.values())
    return passes + speed.clearing_s * cleared + speed.update_s * updated


def training_times(
    model: Model,
    train: TrainParams,
    clips: Sequence[Clip],
    speed: Speed,
    num_epochs: int,
    whole: bool = True,
) -> Times:
    """Predict a run of training without the start of its process.

    Args:
        model: What is trained.
        train: `train` section.
        clips: What is learnt and, of the split `selection`, what the held-out loss is taken of.
        speed: From `measure_speed`.
        num_epochs: Epochs to train.
        whole: A checkpoint holds the whole model, not what is trained alone.
    """
    learnt = [clip for clip in clips if clip.split == "train"]
    heard = [clip for clip in clips if clip.split == "selection"]
    held = sum(model.updated(precision_of(train) != "bfloat16", text_rows(learnt)).values())
    saved_s = speed.state_s * (model.num_trained if whole else held)
    saved_s += speed.export_s * (model.num_params if whole else held)
    return {
        "steps": num_epochs * steps_s(model, train, learnt, speed),
        "held-out loss": (num_epochs + 1) * listening_s(model, train, heard, speed),
        "saving": num_epochs * saved_s,
    }


def listening_s(model: Model, train: TrainParams, clips: Sequence[Clip], speed: Speed) -> float:
    """Predict the seconds of one held-out loss."""
    ordered = sorted(clips, key=lambda clip: -clip.num_positions)
    batches = [
        ordered[at : at + train.batch_size] for at in range(0, len(ordered), train.batch_size)
    ]
    return sum(speed.listening.batch_s(model, batch_of(batch)) for batch in batches)


def measure_speed(
    model: Model, train: TrainParams, clips: Sequence[Clip], device: torch.device
) -> Speed:
    """Time models of one and of three layers of either kind on a batch as training has it.

    Args:
        model: Whose widths are taken.
        train: `train` section: types, checkpointing and optimizer are as in training.
        clips: What is learnt; a batch of the middle size is timed.
        device: Where to measure.
    """
    shapes = [
        batch_of([clips[i] for i in at]) for window in _windows(train, clips) for at in window
    ]
    shape = sorted(shapes, key=lambda shape: shape.num_frames)[len(shapes) // 2]
    keep_freed_memory()
    if train.low_memory or train.gradient_checkpointing:  # as the loop does
        return_freed_memory()
    try:
        one, more, sub = (_train_small(model, train, shape, device, n) for n in _LAYERS)
        clearing_s = _clearing_s(train, device)
        saving = _saving_s(model, train, device)
    finally:
        keep_freed_memory()
    K = model.config.talker_config.num_code_groups

    def of(at: int) -> Pass:
        talker_s = max(more[at] - one[at], 0.0) / 2
        predictor_s = max(sub[at] - one[at], 0.0) / 2
        return Pass(
            talker_s / (shape.num_rows * shape.length),
            predictor_s / (K * shape.num_frames),
            max(one[at] - talker_s - predictor_s, 0.0) / shape.num_frames,
        )

    return Speed(of(0), of(1), one[2], clearing_s, *saving)


def _train_small(
    model: Model,
    train: TrainParams,
    shape: BatchShape,
    device: torch.device,
    layers: tuple[int, int],
) -> tuple[float, float, float]:
    """Train a model of few layers as the loop does.

    Returns:
        Seconds of a pass forward and back, of one forward alone, and of an update for one weight;
        the last 0 for all but the smallest model, because updates can be slow and are much alike.
    """
    from voxadapt.model.forward import predict
    from voxadapt.training.losses import loss_sums, total_loss
    from voxadapt.training.trainer import make_optimizer

    precision = precision_of(train)
    small = _small_to_train(model, train, device, *layers)
    if train.gradient_checkpointing:
        small.gradient_checkpointing_enable({"use_reentrant": False})
    small.train()
    batch = small_batch(small, shape).to(device)
    trained = {name: p for name, p in small.named_parameters() if p.requires_grad}
    optimizer = make_optimizer(trained, train)

    def forward() -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "autocast"):
            return loss_sums(predict(small, batch, None))

    def learn() -> None:
        sums = forward()
        total_loss(sums, sums.num_labels, sums.num_frames, 0.3).backward()

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(trained.values(), train.max_grad_norm)
        optimizer.step()

    taken: list[tuple[float, float, float]] = []
    while len(taken) < 2 or (sum(map(sum, taken)) < PATIENCE_S and len(taken) < MOST):
        optimizer.zero_grad(set_to_none=True)
        learnt_s = seconds_of(learn, device)
        updated_s = seconds_of(update, device) if layers == _LAYERS[0] else 0.0
        with torch.no_grad():
            taken.append((learnt_s, seconds_of(forward, device), updated_s))
    weights = max(1, sum(p.numel() for p in trained.values()))
    learnt_s, heard_s, updated_s = (fmean(times[1:]) for times in zip(*taken, strict=True))
    return learnt_s, heard_s, updated_s / weights


def _small_to_train(
    model: Model,
    train: TrainParams,
    device: torch.device,
    talker_layers: int,
    predictor_layers: int,
) -> Any:
    """Build a model of few layers in the masters' type, with the same parts frozen."""
    kind = torch.bfloat16 if precision_of(train) == "bfloat16" else torch.float32
    small = small_model(model, talker_layers, predictor_layers).to(device)
    for name, parameter in small.named_parameters():
        parameter.data = parameter.data.to(kind)
        first = re.sub(r"(?<=layers\.)\d+", "0", name)  # the model may have fewer layers
        parameter.requires_grad_(model.counts[first][1])
    return small


def _saving_s(model: Model, train: TrainParams, device: torch.device) -> tuple[float, float]:
    """Save a model of few layers as an epoch is saved.

    Returns:
        Seconds of the checkpoint for one weight of the model, and of the comparison with the Base
        and the resumable state for one weight that is trained.
    """
    from voxadapt.core.files import write_json
    from voxadapt.model.checkpoint import export_checkpoint
    from voxadapt.model.tokens import SpeakerRow
    from voxadapt.training.state import LoopState, save_state
    from voxadapt.training.trainer import make_optimizer
    from voxadapt.training.updates import measure_drift

    small = _small_to_train(model, train, device, 1, 1)
    trained = {name: p for name, p in small.named_parameters() if p.requires_grad}
    optimizer = make_optimizer(trained, train)
    for parameter in trained.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with tempfile.TemporaryDirectory(dir=_folder()) as name:
        base, out = Path(name) / "base", Path(name) / "out"
        base.mkdir()
        write_json(base / "config.json", {"model_type": "qwen3_tts", "tts_model_type": "base"})
        stored = {
            name: p.detach().to("cpu", torch.bfloat16) for name, p in small.named_parameters()
        }
        save_file(stored, base / "model.safetensors")
        row, vector = SpeakerRow(0, False, 0.0, 0.0), torch.zeros(model.talker.width)

        def export() -> None:
            export_checkpoint(out, base, trained, "anyone", row, vector, {})

        def keep() -> None:
            measure_drift(trained, base)
            save_state(Path(name) / "state.pt", LoopState(), trained, optimizer)

        taken = [(seconds_of(export, device), seconds_of(keep, device)) for _ in range(2)]
    export_s, keep_s = (min(times) for times in zip(*taken, strict=True))
    count = sum(p.numel() for p in small.parameters())
    return export_s / count, keep_s / max(1, sum(p.numel() for p in trained.values()))


def _folder() -> Path:
    """Return the folder of resumable state, on the disk on which training saves."""
    folder = paths.work_dir()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _clearing_s(train: TrainParams, device: torch.device) -> float:
    """Return the seconds in which the gradient of one weight of an embedding is made."""
    size, kind = 1 << 22, torch.bfloat16 if precision_of(train) == "bfloat16" else torch.float32

    def clear() -> None:
        torch.zeros(size, dtype=kind, device=device)

    clear()
    return min(seconds_of(clear, device) for _ in range(2)) / size


def _windows(train: TrainParams, clips: Sequence[Clip]) -> list[list[list[int]]]:
    """Return the first epoch's optimizer steps: batches of indices."""
    return epoch_windows(
        [clip.num_positions for clip in clips],
        train.batch_size,
        train.gradient_accumulation_steps,
        train.seed,
        1,
    )


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """Time a call."""
    clock = clock_of(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def clock_of(device: torch.device) -> Callable[[], float]:
    """Return the clock for what this device does."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter
