"""The training loop, to be read from top to bottom: `Trainer.run`, then the methods that it calls.

In: utterances with their codes, reference recordings, a Base model. Out: a checkpoint folder for
each epoch, a CSV log and a summary. An `Adaptation` (a speaker, or a stage of a language) decides
which parameters are trained and how an epoch is written. One optimizer step: sum the token losses
of `gradient_accumulation_steps` batches, each divided by the token counts of the whole step; clip
the gradient; AdamW. Several processes (`distributed.py`) share each batch and take the same step;
the main one writes.

State is saved after every epoch and every few minutes. A run that was stopped resumes from there
and ends with the same bytes (on a CPU, with as many processes); a run that is given one more epoch
under a constant schedule trains that epoch only.
"""

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from voxadapt.core.compat import give_back_memory, return_freed_memory
from voxadapt.core.errors import raise_problems
from voxadapt.core.files import read_json, sha256_folder, write_json
from voxadapt.core.params import TrainParams
from voxadapt.core.problems import problem, user_error
from voxadapt.core.progress import Progress
from voxadapt.core.provenance import fingerprint
from voxadapt.data.manifest import Utterance
from voxadapt.model.checkpoint import iterate_weights, publish
from voxadapt.model.delta import rescale
from voxadapt.model.forward import predict
from voxadapt.model.layout import Batch
from voxadapt.model.load import load_tts, speaker_vector
from voxadapt.model.stock import Tts, TtsModel
from voxadapt.model.tokens import SpecialIds
from voxadapt.training import augmentation, log
from voxadapt.training import distributed as engine
from voxadapt.training.adaptations.base import Adaptation
from voxadapt.training.adaptations.speaker import SpeakerAdaptation
from voxadapt.training.batches import (
    Example,
    GeneratedUtterance,
    balanced_epoch,
    build_examples,
    draw_frame_keep_mask,
    epoch_windows,
    make_batch,
    share_of,
)
from voxadapt.training.losses import LossSums, LossTotals, loss_sums, total_loss
from voxadapt.training.optimizer import make_optimizer
from voxadapt.training.precision import Precision
from voxadapt.training.schedule import learning_rate
from voxadapt.training.speakers import SpeakerIndex
from voxadapt.training.state import (
    LogRow,
    LoopState,
    SavedState,
    clear_stale,
    load_state,
    restore_state,
    run_identity,
    save_state,
)
from voxadapt.training.text_rows import TEXT_EMBEDDING, occurring_rows
from voxadapt.training.updates import UpdateProbe, measure_drift

PROBE_EVERY_STEPS = 10

Window = list[list[int]]  # an optimizer step: batches, each a list of examples by number


@dataclass(frozen=True)
class TrainResult:
    """What a run has made."""

    checkpoints: tuple[Path, ...]  # folder of each epoch, in order
    #: JSON-like summary: precision, speaker row, module counts, epochs; only the main process knows
    #: how far an epoch has moved weights.
    metrics: dict[str, object]
    rows: tuple[LogRow, ...]  # rows of the log
    resumed_step: int  # step from which this call resumed; 0 for a fresh run


def train(
    params: TrainParams,
    *,
    model_path: str | Path,
    utterances: Sequence[Utterance | GeneratedUtterance],
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
        utterances: Accepted utterances: `train` rows are trained on, `selection` rows measured.
        codes: Codes `[N, K]` by utterance id.
        ref_audio: Recording that gives the speaker vector; not read where `speakers` are given.
        out_dir: Receives `epoch-1/`, `epoch-2/`, …; epochs of other runs are taken out.
        work_dir: Receives resumable state, under the fingerprint of everything above.
        num_epochs: Epochs that shall exist at the end.
        adaptation: What is trained and how epochs are written; None: the speaker of `params`.
        tags: Language of single utterances by id; the others have `params.language`.
        speakers: Recordings of several speakers by name, each for its own speaker vector; an
            utterance that names no speaker is one of `params.speaker_name`. None: one speaker.
        log_path: CSV log; None writes none.
        device: Where to train; several processes on GPUs have one each.
        attention: Attention implementation.
        base_sha256: Hash of the Base's folder, if it is known.
        save_every_s: Seconds between two saves inside an epoch.

    Raises:
        UserError: For data or parameters that cannot be trained, NaN losses, lack of memory.
    """
    model_path = Path(model_path)
    train_utterances, selection_utterances = _split(utterances, codes)
    used = [*train_utterances, *selection_utterances]
    index = SpeakerIndex.build(used, params.speaker_name, ref_audio, speakers)
    adaptation = adaptation or SpeakerAdaptation(params, model_path, index)
    accelerator, device = engine.start(params, torch.device(device))
    identity = run_identity(
        params, base_sha256 or sha256_folder(model_path), used, codes, index.references[0],
        attention, num_epochs,
        {**adaptation.identity, **({"tags": tags} if tags else {}), **index.identity()},
    )  # fmt: skip
    trainer = Trainer(
        params=params,
        adaptation=adaptation,
        speakers=index,
        train_utterances=train_utterances,
        selection_utterances=selection_utterances,
        codes=codes,
        tags=tags or {},
        model_path=model_path,
        out_dir=Path(out_dir),
        folder=Path(work_dir) / "train" / fingerprint(identity),
        num_epochs=num_epochs,
        log_path=log_path,
        attention=attention,
        identity=identity,
        save_every_s=save_every_s,
        accelerator=accelerator,
        device=device,
    )
    return trainer.run()


@dataclass
class Trainer:
    """One run; `train` says what most attributes mean."""

    params: TrainParams
    adaptation: Adaptation
    speakers: SpeakerIndex
    train_utterances: Sequence[Utterance | GeneratedUtterance]
    selection_utterances: Sequence[Utterance | GeneratedUtterance]
    codes: Mapping[str, np.ndarray]
    tags: Mapping[str, str]
    model_path: Path
    out_dir: Path
    folder: Path
    num_epochs: int
    log_path: str | Path | None
    attention: str
    identity: Mapping[str, object]
    save_every_s: float
    accelerator: Accelerator
    device: torch.device

    def run(self) -> TrainResult:
        """Train the epochs that are missing and publish all of them."""
        saved = self.resume()
        resumed_step = self.state.step
        if self.state.epoch >= self.num_epochs:
            return self.finish(resumed_step)
        self.setup(saved)
        del saved
        state = self.state
        with log.explain_memory(self.params, self.examples, state):
            if state.step == 0 and not state.rows:
                columns = log.heldout_columns(self.validate(), self.params)
                state.rows.append({"step": 0, "epoch": 0, **columns})
            label = f"train {self.adaptation.label}"
            progress = Progress(label, self.num_steps - state.step, "steps")
            last_save = time.monotonic()
            for epoch in range(state.epoch + 1, self.num_epochs + 1):
                windows, self.read = self.windows(epoch), self.typed(epoch)
                for number in range(state.window, len(windows)):
                    last = number + 1 == len(windows)
                    row = self.train_step(epoch, number, windows[number], last)
                    if self.is_main:
                        text = f"epoch {epoch}, loss {row['loss']:.3f}, lr {row['lr']:.2g}"
                        progress.advance(1, text)
                    if not last and time.monotonic() - last_save >= self.save_every_s:
                        self.save()
                        last_save = time.monotonic()
                self.save_epoch(epoch)
                last_save = time.monotonic()
        return self.finish(resumed_step)

    def resume(self) -> SavedState | None:
        """Read the state of an earlier call; take out epochs that belong to another run."""
        self.is_main: bool = self.accelerator.is_main_process
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.is_main:
            clear_stale(self.out_dir, self.folder, self.num_epochs)
        saved = load_state(self.folder)
        self.state = LoopState(**saved["loop"]) if saved else LoopState()
        if saved and self.is_main and self.params.method == "lora":
            for number in range(1, self.state.epoch + 1):  # they are trained for any scale
                rescale(self.folder / f"epoch-{number}", self.params.lora.export_factor)
        engine.same_everywhere(self.accelerator, self.state.step, str(self.folder))
        return saved

    def setup(self, saved: SavedState | None) -> None:
        """Load the model, lay out the data, make the optimizer, restore a saved state."""
        params = self.params
        self.precision = Precision.of(params)
        torch.manual_seed(params.seed)
        with log.explain_memory():
            tts = load_tts(
                self.model_path, self.device, torch.float32, self.attention, as_base=True
            )
        model, ids = tts.model, SpecialIds.from_config(tts.model.config)
        vectors = torch.stack([speaker_vector(tts, path) for path in self.speakers.references])
        # Codes are there already, and the codec takes a gigabyte.
        model.speech_tokenizer = None  # type: ignore[assignment]
        self.precision.cast(model)
        self.prepared = self.adaptation.prepare(tts, ids, vectors)
        self.ids, self.trained = self.prepared.ids, self.prepared.trained
        if params.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        if params.low_memory or params.gradient_checkpointing:
            return_freed_memory()
        else:
            give_back_memory()  # what loading has freed

        self.examples, self.selection_examples = (
            build_examples(rows, self.codes, tts, self.ids, params.language, tags=self.tags)
            for rows in (self.train_utterances, self.selection_utterances)
        )
        self.variants = self.build_variants(tts)
        self.num_steps = self.num_epochs * len(self.windows(1))

        occurring = [*self.examples, *itertools.chain(*self.variants.values())]
        self.text_rows = occurring_rows(model, self.trained, occurring)
        self.optimized = dict(self.trained)  # what the optimizer moves
        if self.text_rows:
            self.optimized[TEXT_EMBEDDING] = self.text_rows.rows
        self.optimizer = make_optimizer(self.optimized, params)
        if saved:
            restore_state(saved, self.trained, self.optimizer)
            if self.text_rows:
                self.text_rows.read()
        self.forward = ForwardLoss(model, vectors, self.speakers.of_utterance)
        self.forward_all = self.accelerator.prepare_model(self.forward)
        stored = {name: tensor.dtype for name, tensor in iterate_weights(self.model_path)}
        stored |= self.prepared.stored
        self.probe = UpdateProbe(self.optimized, stored)
        self.describe(stored[next(iter(self.trained))])

    def describe(self, stored: torch.dtype) -> None:
        """Write down and print what is trained."""
        precision, counts = self.precision.names(stored), self.prepared.counts
        self.about: dict[str, object] = {
            "run": self.folder.name,
            **self.prepared.about,
            "language": self.params.language,
            "lr": self.params.lr,
            "precision": precision,
            **{key: value for key, value in self.identity.items() if key.endswith("_sha256")},
        }
        if self.is_main:
            modules = [asdict(count) for count in counts]
            write_json(self.folder / "about.json", {**self.about, "modules": modules})
            num_processes = self.accelerator.num_processes
            what = self.prepared.describe
            log.say(log.describe(self.params, precision, counts, what, num_processes))

    def build_variants(self, tts: Tts) -> dict[str, list[Example]]:
        """Lay out the other ways in which each text of the train split may be typed, by id."""
        if not self.params.text_augmentation:
            return {}
        rows = [
            GeneratedUtterance(row.id, text, row.language or "")
            for row in self.train_utterances
            for text in augmentation.variants(row.text)
        ]
        found: dict[str, list[Example]] = {}
        for example in build_examples(
            rows, self.codes, tts, self.ids, self.params.language, tags=self.tags
        ):
            found.setdefault(example.id, []).append(example)
        return found

    def typed(self, epoch: int) -> list[Example]:
        """Return the training examples with their texts as an epoch reads them."""
        share, seed, read = self.params.text_augmentation, self.params.seed, list(self.examples)
        for place, example in enumerate(read if self.variants else ()):
            others = self.variants.get(example.id, [])
            number = augmentation.draw(len(others), share, seed, epoch, example.id)
            if number is not None:
                read[place] = others[number]
        return read

    def windows(self, epoch: int) -> list[Window]:
        """Order an epoch: its optimizer steps, with the same examples whatever the processes."""
        params, drawn = self.params, list(range(len(self.examples)))
        if self.speakers.named and params.balance:
            names = [self.speakers.names[self.speakers.of_utterance[e.id]] for e in self.examples]
            frames = [example.layout.num_frames for example in self.examples]
            drawn = balanced_epoch(names, frames, params.balance, params.seed, epoch)
        windows = epoch_windows(
            [len(self.examples[i].layout) for i in drawn],
            params.batch_size, params.gradient_accumulation_steps, params.seed, epoch,
        )  # fmt: skip
        return [[[drawn[i] for i in batch] for batch in window] for window in windows]

    def train_step(self, epoch: int, number: int, window: Window, last: bool) -> LogRow:
        """Take an optimizer step and return its log row.

        `epoch` counts from 1, `number`, of the step within it, from 0; with `last` the epoch ends.

        Raises:
            UserError: When loss or gradient are not finite.
        """
        started = time.perf_counter()
        params, state = self.params, self.state
        together = [self.read[i] for batch in window for i in batch]
        lr = learning_rate(
            state.step, params.lr, params.schedule, params.warmup_steps, self.num_steps
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        totals = self.backward(window, together)
        grad_norm = float(
            torch.nn.utils.clip_grad_norm_(self.optimized.values(), params.max_grad_norm)
        )
        loss = totals.loss(params.sub_talker_weight)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            names = [example.id for example in together]
            raise log.not_finite(epoch, number, loss, grad_norm, names, state.epoch)
        probed = number % PROBE_EVERY_STEPS == 0 or last
        if probed:
            self.probe.before_step(self.optimizer)
        self.optimizer.step()
        lost = self.probe.after_step(self.optimizer) if probed else None
        state.step, state.window = state.step + 1, number + 1
        row: LogRow = {
            "step": state.step, "epoch": epoch, "loss": loss, "c0_loss": totals.c0_loss,
            "sub_loss": totals.sub_loss, "lr": lr, "grad_norm": grad_norm,
            "lost_update_share": lost.stored if lost else None,
            "lost_update_share_trained": lost.trained if lost else None,
            "num_labels": totals.num_labels, "num_frames": totals.num_frames,
            **log.codebook_columns(totals),
            "frames_per_s": round(totals.num_frames / (time.perf_counter() - started), 1),
        }  # fmt: skip
        state.rows.append(row)
        return row

    def backward(self, window: Window, together: Sequence[Example]) -> LossTotals:
        """Add up the gradient of a step; each process computes its share of every batch."""
        rank, num_processes = self.accelerator.process_index, self.accelerator.num_processes
        num_labels = sum(len(example.layout.label_positions) for example in together)
        num_frames = sum(example.layout.num_frames for example in together)
        totals = LossTotals.zeros(self.ids.num_codebooks)
        for number, numbers in enumerate(window):
            rows = [self.read[i] for i in numbers]
            share = share_of(len(rows), rank, num_processes)
            batch = make_batch([rows[place] for place in share.rows], self.ids)
            longest = max(len(example.layout) for example in rows)
            keep = draw_frame_keep_mask(len(rows), longest, self.params.frame_dropout)
            if keep is not None:
                keep = keep[share.rows, : batch.labels.shape[1]].to(self.device)
            # Processes exchange their gradients with the step's last batch.
            last = number + 1 == len(window)
            with nullcontext() if last else self.accelerator.no_sync(self.forward_all):
                with self.precision.autocast(self.device):
                    sums: LossSums = self.forward_all(batch.to(self.device), keep)
                part = total_loss(sums, num_labels, num_frames, self.params.sub_talker_weight)
                (part * share.factor).backward()
            if share.factor:
                totals.add(sums)
        return engine.total(self.accelerator, totals)

    def validate(self) -> LossTotals:
        """Measure the selection split, longest clips first, all tokens weighing the same."""
        rank, num_processes = self.accelerator.process_index, self.accelerator.num_processes
        totals = LossTotals.zeros(self.ids.num_codebooks)
        order = sorted(self.selection_examples, key=lambda example: -len(example.layout))
        size = self.params.batch_size
        with torch.no_grad(), self.precision.autocast(self.device):
            for start in range(0, len(order), size):
                own = order[start : start + size][rank::num_processes]
                if own:
                    totals.add(self.forward(make_batch(own, self.ids).to(self.device)))
        return engine.total(self.accelerator, totals)

    def save(self) -> None:
        """Write the resumable state."""
        if self.is_main:
            if self.text_rows:
                self.text_rows.write_back()
            save_state(self.folder / "state.pt", self.state, self.trained, self.optimizer)

    def save_epoch(self, epoch: int) -> None:
        """Validate, write the checkpoint to the work folder, then the state, then publish it."""
        state, target = self.state, self.folder / f"epoch-{epoch}"
        self.optimizer.zero_grad(set_to_none=True)
        give_back_memory()
        heldout = self.validate()
        give_back_memory()
        state.rows[-1].update(log.heldout_columns(heldout, self.params))
        summary = log.epoch_summary(epoch, state, heldout, self.params)
        if self.is_main:
            if self.text_rows:
                self.text_rows.write_back()
            drift = measure_drift(self.trained, self.model_path, self.prepared.changed)
            summary["drift"] = {module: asdict(value) for module, value in drift.items()}
            self.prepared.export(target, {**self.about, **summary})
        state.epochs.append(summary)
        state.epoch, state.window = epoch, 0
        self.save()
        if self.is_main:
            publish(target, self.out_dir / target.name)

    def finish(self, resumed_step: int) -> TrainResult:
        """Publish the epochs that were asked for, write the log, and sum up."""
        names = [f"epoch-{number}" for number in range(1, self.num_epochs + 1)]
        rows = tuple(row for row in self.state.rows if (row["epoch"] or 0) <= self.num_epochs)
        if self.is_main:
            for name in names:
                publish(self.folder / name, self.out_dir / name)
            if self.log_path is not None:
                log.write_log(self.log_path, rows)
            log.write_speed(self.folder / "speed.csv", rows)
        self.accelerator.wait_for_everyone()
        epochs = self.state.epochs[: self.num_epochs]
        metrics = {**read_json(self.folder / "about.json"), "epochs": epochs}
        return TrainResult(
            tuple(self.out_dir / name for name in names), metrics, rows, resumed_step
        )


class ForwardLoss(nn.Module):
    """Forward pass and loss in one call: the one to which processes attach their exchange.

    Speaker vectors are `[S, D]`; `of_utterance` says which of them belongs to an utterance.
    """

    def __init__(self, model: TtsModel, vectors: Tensor, of_utterance: Mapping[str, int]) -> None:
        super().__init__()
        self.model, self._vectors, self._of_utterance = model, vectors, of_utterance

    def forward(self, batch: Batch, frame_keep_mask: Tensor | None = None) -> LossSums:
        """Sum the losses of a batch; each row has its own speaker vector `[B, 1, D]`."""
        # One by one: a list of indices would be a tensor of the CPU, for which a GPU waits.
        chosen = [self._vectors[self._of_utterance[name]] for name in batch.names]
        vectors = torch.stack(chosen)[:, None]
        return loss_sums(predict(self.model, batch, vectors, frame_keep_mask))


def _split(
    utterances: Sequence[Utterance | GeneratedUtterance], codes: Mapping[str, np.ndarray]
) -> tuple[list[Utterance | GeneratedUtterance], list[Utterance | GeneratedUtterance]]:
    """Return what is trained on and what is measured; both have codes."""
    train_utterances = [row for row in utterances if row.split == "train"]
    selection_utterances = [row for row in utterances if row.split == "selection"]
    if not train_utterances:
        raise user_error("training.no_train_split", "manifest")
    missing = [row.id for row in (*train_utterances, *selection_utterances) if row.id not in codes]
    raise_problems([problem("training.no_codes", name) for name in missing])
    return train_utterances, selection_utterances
