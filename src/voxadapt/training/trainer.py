"""The training loop: one function, read from top to bottom.

In: utterances with their codes, one reference recording, a Base model. Out: a checkpoint folder
per epoch, a CSV log, and a summary. What is trained and how an epoch is written is the business
of an `Adaptation`: a speaker, or a stage of a language. One step: sum the token
losses of `gradient_accumulation_steps` batches, each divided by the token counts of the whole
step; clip; AdamW on float32 masters. Several processes (`engine.py`) share each batch and take the
same step; the main one writes.

State is saved after every epoch and every few minutes. A run that was stopped goes on from there
and ends with the same bytes (on a CPU, with as many processes); a run that is given one more epoch
under a constant schedule trains that epoch only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from voxadapt.core.compat import give_back_memory, return_freed_memory
from voxadapt.core.errors import Problem, UserError
from voxadapt.core.files import read_json, sha256_file, sha256_folder, write_json
from voxadapt.core.params import TrainParams
from voxadapt.core.progress import Progress
from voxadapt.core.provenance import fingerprint
from voxadapt.data.manifest import Utterance
from voxadapt.model.checkpoint import iterate_weights, publish
from voxadapt.model.forward import predict
from voxadapt.model.layout import Batch
from voxadapt.model.load import load_tts, speaker_vector
from voxadapt.model.tokens import SpecialIds
from voxadapt.training import distributed as engine
from voxadapt.training import log
from voxadapt.training.adaptation import Adaptation, speaker_adaptation
from voxadapt.training.batches import (
    Line,
    balanced_epoch,
    build_examples,
    draw_heard,
    epoch_windows,
    make_batch,
    share_of,
)
from voxadapt.training.compact import CompactAdamW
from voxadapt.training.losses import LossSums, Tally, loss_sums, total_loss
from voxadapt.training.occurring import TEXT_EMBEDDING, occurring_rows
from voxadapt.training.schedule import learning_rate
from voxadapt.training.state import LoopState, clear_stale, load_state, run_identity, save_state
from voxadapt.training.updates import UpdateProbe, measure_drift

PROBE_EVERY_STEPS = 10


@dataclass(frozen=True)
class TrainResult:
    """What a run has made.

    Attributes:
        checkpoints: Folder of each epoch, in order.
        metrics: JSON-like summary: precision, speaker row, module counts, epochs; only the main
            process knows how far an epoch has moved weights.
        rows: Rows of the log.
        resumed_step: Step from which this call went on; 0 for a fresh run.
    """

    checkpoints: tuple[Path, ...]
    metrics: dict[str, Any]
    rows: tuple[dict[str, Any], ...]
    resumed_step: int


def train(
    params: TrainParams,
    *,
    model_path: str | Path,
    utterances: Sequence[Utterance | Line],
    codes: Mapping[str, np.ndarray],
    ref_audio: str | Path,
    out_dir: str | Path,
    work_dir: str | Path,
    num_epochs: int,
    adaptation: Adaptation | None = None,
    tags: Mapping[str, str] | None = None,
    speakers: Mapping[str, str | Path] | None = None,
    log_path: str | Path | None = None,
    device: torch.device | str = "cpu",
    attention: str = "sdpa",
    base_sha256: str | None = None,
    save_every_s: float = 300.0,
) -> TrainResult:
    """Adapt a Base model, to a speaker unless another adaptation is given.

    Args:
        params: `train` section.
        model_path: Base model, or a checkpoint of an earlier run.
        utterances: Accepted utterances; `train` rows are learnt, `selection` rows measured.
        codes: Codes `[N, K]` by utterance id.
        ref_audio: Recording that gives the speaker vector; not read where `speakers` are given.
        out_dir: Receives `epoch-1/`, `epoch-2/`, …; epochs of other runs are removed from it.
        work_dir: Receives resumable state, under the fingerprint of everything above.
        num_epochs: Epochs that shall exist at the end.
        adaptation: What is trained and how epochs are written; None: the speaker of `params`.
        tags: Language of single utterances by id; the others have `params.language`.
        speakers: Several speakers' recordings by name, each for its own speaker vector; what names
            no speaker is spoken by `params.speaker_name`. None: a single speaker.
        log_path: CSV log; None writes none.
        device: Where to train; several processes on GPUs have one each.
        attention: Attention implementation.
        base_sha256: Hash of the Base's folder, if it is known.
        save_every_s: Seconds between two saves inside an epoch.

    Raises:
        UserError: For data or parameters that cannot be trained, NaN losses, lack of memory.
    """
    # 1. Refuse or resume: everything that decides the result is in the fingerprint.
    model_path, out_dir = Path(model_path), Path(out_dir)
    voices = list(speakers or ())
    adaptation = adaptation or speaker_adaptation(params, model_path, voices)
    tags = tags or {}
    learnt = [row for row in utterances if row.split == "train"]
    heldout = [row for row in utterances if row.split == "selection"]
    if not learnt:
        raise UserError(
            Problem("manifest", "utterances of the train split", "none", "Run the audit again.")
        )
    missing = [row.id for row in (*learnt, *heldout) if row.id not in codes]
    if missing:
        raise UserError(
            [Problem(i, "codes", "none", "Run the codes stage again.") for i in missing]
        )
    references = list(speakers.values()) if speakers else [ref_audio]
    spoken_by = _spoken_by(params, voices, (*learnt, *heldout))
    accelerator, device = engine.start(params, torch.device(device))
    rank, num_processes = accelerator.process_index, accelerator.num_processes
    main = accelerator.is_main_process
    identity = run_identity(
        params, base_sha256 or sha256_folder(model_path), (*learnt, *heldout), codes,
        references[0], attention, num_epochs,
        {
            **adaptation.identity,
            **({"tags": tags} if tags else {}),
            **({"spoken_by": spoken_by, "references": list(map(sha256_file, references)),
                "speakers": voices} if voices else {}),
        },
    )  # fmt: skip
    run = fingerprint(identity)
    folder = Path(work_dir) / "train" / run
    folder.mkdir(parents=True, exist_ok=True)
    if main:
        clear_stale(out_dir, run, num_epochs)
    saved = load_state(folder)
    state = LoopState(**saved["loop"]) if saved else LoopState()
    resumed_step = state.step
    engine.same_everywhere(accelerator, resumed_step, str(folder))
    if state.epoch >= num_epochs:
        return _publish(folder, out_dir, num_epochs, state, log_path, resumed_step, accelerator)

    # 2. Seed, model, speaker vector, precision, freezing.
    torch.manual_seed(params.seed)
    with log.explain_memory():
        tts = load_tts(model_path, device, torch.float32, attention, as_base=True)
    model, ids = tts.model, SpecialIds.from_config(tts.model.config)
    vectors = [speaker_vector(tts, reference) for reference in references]
    vector = torch.stack(vectors) if voices else vectors[0]
    model.speech_tokenizer = None  # codes are there already; the codec is a gigabyte of weights
    compute_dtype = getattr(torch, params.compute_dtype)
    full = params.master_weights and not params.low_memory
    master_dtype = torch.float32 if full else compute_dtype
    for parameter in model.parameters():  # not model.to(): rotary frequencies stay float32
        parameter.data = parameter.data.to(master_dtype)
    prepared = adaptation.prepare(tts, ids, vector)
    ids, trained, counts = prepared.ids, prepared.trained, prepared.counts
    if params.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    if params.low_memory or params.gradient_checkpointing:
        return_freed_memory()
    else:
        give_back_memory()  # what loading has freed

    # 3. Data.
    examples = build_examples(learnt, codes, tts, ids, params.language, tags=tags)
    heldout_examples = build_examples(heldout, codes, tts, ids, params.language, tags=tags)
    lengths = [len(example.layout) for example in examples]

    def windows_of(epoch: int) -> list[list[list[int]]]:
        accumulation = params.gradient_accumulation_steps
        drawn = list(range(len(examples)))
        if voices and params.balance:
            whose = [voices[spoken_by[example.id]] for example in examples]
            frames = [example.layout.num_frames for example in examples]
            drawn = balanced_epoch(whose, frames, params.balance, params.seed, epoch)
        windows = epoch_windows(
            [lengths[i] for i in drawn], params.batch_size, accumulation, params.seed, epoch
        )
        return [[[drawn[i] for i in at] for at in window] for window in windows]

    steps_per_epoch = len(windows_of(1))

    # 4. Optimizer; weights, moments and random state of an earlier run.
    text_rows = occurring_rows(model, trained, examples)
    moved = {**trained, TEXT_EMBEDDING: text_rows.rows} if text_rows else trained
    optimizer = make_optimizer(moved, params)
    if saved:
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(saved["weights"][name])
        if text_rows:
            text_rows.read()
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["rng"])
        if device.type == "cuda":  # another machine may have more GPUs, or fewer
            for index, rng in enumerate(saved["cuda_rng"][: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(rng, index)
    del saved
    forward = _Forward(model, vector, spoken_by)
    learner = accelerator.prepare_model(forward)
    stored = {name: tensor.dtype for name, tensor in iterate_weights(model_path)}
    stored |= prepared.stored
    probe = UpdateProbe(moved, stored)
    master_name = "24-bit" if params.low_memory else str(master_dtype).removeprefix("torch.")
    precision = {
        "master_dtype": master_name,
        "compute_dtype": params.compute_dtype,
        "stored_dtype": str(stored[next(iter(trained))]).removeprefix("torch."),
    }
    about = {
        "run": run,
        **prepared.about,
        "language": params.language,
        "lr": params.lr,
        "precision": precision,
        **{key: value for key, value in identity.items() if key.endswith("_sha256")},
    }
    if main:
        write_json(folder / "about.json", {**about, "modules": [asdict(c) for c in counts]})
        log.say(log.describe(params, precision, counts, prepared.describe, num_processes))

    nothing = (0.0,) * (ids.num_codebooks - 1)

    def autocast() -> Any:
        if compute_dtype == torch.float32 or master_dtype != torch.float32:
            return nullcontext()
        return torch.autocast(device.type, dtype=compute_dtype)

    def heldout_loss() -> Tally:
        """Measure the held-out split, longest clips first, all tokens weighing the same."""
        tally = Tally(sub_sums=nothing)
        order = sorted(heldout_examples, key=lambda e: -len(e.layout))
        with torch.no_grad(), autocast():
            for at in range(0, len(order), params.batch_size):
                own = order[at : at + params.batch_size][rank::num_processes]
                if own:
                    tally.add(forward(make_batch(own, ids).to(device)))
        return engine.total(accelerator, tally)

    def save() -> None:
        if not main:
            return
        if text_rows:
            text_rows.write_back()
        save_state(folder / "state.pt", state, trained, optimizer)

    # 5. Where the Base stands on the held-out split.
    with log.explain_memory(params, examples, state):
        if state.step == 0 and not state.rows:
            state.rows.append(
                {"step": 0, "epoch": 0, **log.heldout_columns(heldout_loss(), params)}
            )

        # 6. The loop.
        progress = Progress(
            f"train {adaptation.label}", num_epochs * steps_per_epoch - state.step, "steps"
        )
        last_save = time.monotonic()
        for epoch in range(state.epoch + 1, num_epochs + 1):
            windows = windows_of(epoch)
            for number in range(state.window, len(windows)):
                started = time.perf_counter()
                # The step is decided for all processes; each computes its share of every batch.
                window = windows[number]
                together = [examples[i] for at in window for i in at]
                num_labels = sum(len(e.layout.label_positions) for e in together)
                num_frames = sum(e.layout.num_frames for e in together)
                shares = [share_of(len(at), rank, num_processes) for at in window]
                batches = [
                    make_batch([examples[at[row]] for row in share.rows], ids)
                    for at, share in zip(window, shares, strict=True)
                ]
                lr = learning_rate(
                    state.step, params.lr, params.schedule, params.warmup_steps,
                    num_epochs * steps_per_epoch,
                )  # fmt: skip
                for group in optimizer.param_groups:
                    group["lr"] = lr
                optimizer.zero_grad(set_to_none=True)
                tally = Tally(sub_sums=nothing)
                for at, share, batch in zip(window, shares, batches, strict=True):
                    longest = max(lengths[i] for i in at)
                    heard = draw_heard(len(at), longest, params.frame_dropout)
                    if heard is not None:
                        heard = heard[share.rows, : batch.labels.shape[1]].to(device)
                    # Gradients meet at the step's last batch.
                    with nullcontext() if at is window[-1] else accelerator.no_sync(learner):
                        with autocast():
                            sums = learner(batch.to(device), heard)
                        loss_part = total_loss(
                            sums, num_labels, num_frames, params.sub_talker_weight
                        )
                        (loss_part * share.factor).backward()
                    if share.factor:
                        tally.add(sums)
                tally = engine.total(accelerator, tally)
                grad_norm = float(
                    torch.nn.utils.clip_grad_norm_(moved.values(), params.max_grad_norm)
                )
                loss = tally.loss(params.sub_talker_weight)
                if not (math.isfinite(loss) and math.isfinite(grad_norm)):
                    names = [example.id for example in together]
                    raise log.not_finite(epoch, number, loss, grad_norm, names, state.epoch)
                probed = number % PROBE_EVERY_STEPS == 0 or number + 1 == len(windows)
                if probed:
                    probe.before_step(optimizer)
                optimizer.step()
                lost = probe.after_step(optimizer) if probed else None
                state.step, state.window = state.step + 1, number + 1
                entry = {
                    "step": state.step, "epoch": epoch, "loss": loss, "c0_loss": tally.c0_loss,
                    "sub_loss": tally.sub_loss, "lr": lr, "grad_norm": grad_norm,
                    "lost_update_share": lost.stored if lost else None,
                    "lost_update_share_trained": lost.trained if lost else None,
                    "num_labels": num_labels, "num_frames": num_frames,
                    **log.codebook_columns(tally),
                    "frames_per_s": round(num_frames / (time.perf_counter() - started), 1),
                }  # fmt: skip
                state.rows.append(entry)
                if main:
                    progress.advance(1, f"epoch {epoch}, loss {loss:.3f}, lr {lr:.2g}")
                last = number + 1 == len(windows)
                if not last and time.monotonic() - last_save >= save_every_s:
                    save()
                    last_save = time.monotonic()

            # 7. The epoch's checkpoint: first in the work folder, then the state, then published.
            optimizer.zero_grad(set_to_none=True)
            give_back_memory()
            measured = heldout_loss()
            give_back_memory()
            state.rows[-1].update(log.heldout_columns(measured, params))
            summary = log.epoch_summary(epoch, state, measured, params)
            target = folder / f"epoch-{epoch}"
            if main:
                if text_rows:
                    text_rows.write_back()
                drift = measure_drift(trained, model_path)
                summary["drift"] = {module: asdict(value) for module, value in drift.items()}
                prepared.export(target, {**about, **summary})
            state.epochs.append(summary)
            state.epoch, state.window = epoch, 0
            save()
            last_save = time.monotonic()
            if main:
                publish(target, out_dir / target.name)

    return _publish(folder, out_dir, num_epochs, state, log_path, resumed_step, accelerator)


class _Forward(nn.Module):
    """Forward pass and loss in one call: the one to which processes attach their exchange.

    Args:
        model: `Qwen3TTSForConditionalGeneration`.
        vector: Speaker vector `[D]`; of several speakers `[S, D]`.
        spoken_by: Which of several speaks each utterance.
    """

    def __init__(self, model: nn.Module, vector: Tensor, spoken_by: Mapping[str, int]) -> None:
        super().__init__()
        self.model, self._vector, self._spoken_by = model, vector, spoken_by

    def forward(self, batch: Batch, heard: Tensor | None = None) -> LossSums:
        vector = self._vector
        if vector.ndim == 2:  # each row with its own: [B, 1, D]
            vector = vector[[self._spoken_by[name] for name in batch.names]][:, None]
        return loss_sums(predict(self.model, batch, vector, heard))


def _spoken_by(
    params: TrainParams, names: Sequence[str], utterances: Sequence[Utterance | Line]
) -> dict[str, int]:
    """Number the speaker of each utterance; nothing where there is a single one.

    Raises:
        UserError: When an utterance is spoken by somebody without a reference, or a speaker has
            nothing to be learnt from.
    """
    if not names:
        return {}
    said = {row.id: getattr(row, "speaker", None) or params.speaker_name for row in utterances}
    learnt = {said[row.id] for row in utterances if row.split == "train"}
    problems = [
        Problem(name, "a speaker with a reference recording", "none", "Run the audit again.")
        for name in sorted(set(said.values()) - set(names))
    ] + [
        Problem(f"speaker {name}", "utterances of the train split", "none",
                "Add clips, or leave the speaker out of train.speakers.")
        for name in names if name not in learnt
    ]  # fmt: skip
    if problems:
        raise UserError(problems, "Not every speaker can be trained.")
    return {name: names.index(speaker) for name, speaker in said.items()}


def _publish(
    folder: Path,
    out_dir: Path,
    num_epochs: int,
    state: LoopState,
    log_path: str | Path | None,
    resumed_step: int,
    accelerator: Accelerator,
) -> TrainResult:
    """Place the epochs that were asked for, write the log, and sum up."""
    checkpoints = tuple(out_dir / f"epoch-{n}" for n in range(1, num_epochs + 1))
    rows = tuple(row for row in state.rows if row["epoch"] <= num_epochs)
    if accelerator.is_main_process:
        for path in checkpoints:
            publish(folder / path.name, path)
        if log_path is not None:
            log.write_log(log_path, rows)
        log.write_speed(folder / "speed.csv", rows)
    accelerator.wait_for_everyone()
    metrics = {**read_json(folder / "about.json"), "epochs": state.epochs[:num_epochs]}
    return TrainResult(checkpoints, metrics, rows, resumed_step)


def make_optimizer(trained: Mapping[str, torch.nn.Parameter], params: TrainParams) -> Any:
    """AdamW that decays matrices only: rows of an embedding that no batch used must not move."""
    matrices = [p for name, p in trained.items() if p.ndim > 1 and "embedding" not in name]
    others = [p for name, p in trained.items() if p.ndim <= 1 or "embedding" in name]
    groups = [
        {"params": matrices, "weight_decay": params.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if params.low_memory:
        return CompactAdamW(groups, params.lr, seed=params.seed)
    # One kernel does it all, in one pass over the weights and without a copy of them.
    return torch.optim.AdamW(groups, lr=params.lr, fused=True)
