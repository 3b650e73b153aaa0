"""One recording under teacher forcing: its sequence, and what a candidate predicts at each frame.

The recording's codes are fed to a candidate as in training. Shown are the negative log probability
(surprise) of each code, the probability of the end, and the attention of each head on the text.

Shape legend: N frames, K codebooks, T text tokens, A layers, H heads.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from voxadapt.core.errors import raise_problems
from voxadapt.core.files import first_by_hash
from voxadapt.core.model_folder import resolve_model
from voxadapt.core.params import Params
from voxadapt.core.paths import SPEAKER
from voxadapt.core.problems import problem, user_error
from voxadapt.data.audio import read_mono
from voxadapt.data.manifest import Utterance
from voxadapt.explore.project import CHOSEN, RUNNER_UP, find_candidate, require_files
from voxadapt.explore.selects import Selects
from voxadapt.model.forward import embed, predict
from voxadapt.model.layout import Batch, Layout
from voxadapt.model.load import load_tts, speaker_vector
from voxadapt.model.stock import Tts
from voxadapt.model.tokens import SpecialIds
from voxadapt.pipeline.candidates import BASE, speakers_of_model
from voxadapt.pipeline.context import open_context
from voxadapt.pipeline.corpus_codes import read_corpus_codes
from voxadapt.pipeline.tracks import HELD_OUT, speaker_track
from voxadapt.reporting import mel
from voxadapt.reporting.figures import LIGHT, Plot, remove_frame
from voxadapt.reporting.players import Html, clip_list
from voxadapt.reporting.tables import frame, number, title
from voxadapt.training.batches import build_examples, make_batch

Array = NDArray[np.float64]
WIDTH_IN = 9.0
SPAN_COLOURS = {
    "role": "#d9d4c7", "tag": "#c3bfb4", "speaker": "#c98d2b", "tts_bos": "#e3dfd5",
    "text": "#5b8fc7", "tts_eos": "#e3dfd5", "codec_bos": "#b9c0c7", "frames": "#0b6e63",
    "codec_eos": "#a8322a",
}  # fmt: skip
STREAMS = {
    "role": ("the opening of a turn", ""), "tag": ("padding", "language tag"),
    "speaker": ("padding", "the voice, one vector"), "tts_bos": ("begin of text", "padding"),
    "text": ("the text", "padding"), "tts_eos": ("end of text", "padding"),
    "codec_bos": ("padding", "begin of speech"), "codec_eos": ("padding", "end of speech"),
}  # fmt: skip


@dataclass(frozen=True)
class ForcedRecording:
    """What one candidate predicts for one recording."""

    utterance: Utterance
    candidate: str
    tokens: tuple[str, ...]  # the T text tokens as text
    layout: Layout
    frames_per_s: float
    codes: NDArray[np.int64]  # [N, K]
    surprise: Array  # negative log probability of each code, nats, [N, K]
    p_end: Array  # that the talker ends before frame 0, 1, … and after the last, [N + 1]
    #: Weight on each text token of the position that predicts each frame, [A, H, N, T].
    attention: Array

    @property
    def edges_s(self) -> Array:
        """Where frames begin, and where the last one ends, `[N + 1]`."""
        return np.arange(len(self.codes) + 1) / self.frames_per_s

    def players(self) -> Html:
        """Play the recording, and its codec round trip where one was made."""
        coded = SPEAKER.reference / "codec" / "wavs" / f"{self.utterance.id}.wav"
        audio: list[tuple[str, Path]] = [("recording", Path(self.utterance.audio))]
        audio += [("after the codec", coded)] if coded.is_file() else []
        item = {"title": self.utterance.id, "text": self.utterance.text, "audio": audio}
        return clip_list([item])

    def monotonic_head(self) -> tuple[int, int]:
        """Find the layer and head whose attention moves through the text most steadily.

        The place at a frame is the mean position of the tokens, weighted by attention; steadiness
        is its rank correlation with time, weighted by the share of attention that is on text.
        """
        on_text = self.attention.sum(axis=-1)
        place = (self.attention @ np.arange(len(self.tokens))) / np.maximum(on_text, 1e-12)
        times = np.arange(place.shape[-1])
        with warnings.catch_warnings(action="ignore"):  # a head that does not move has no rank
            steadiness = np.apply_along_axis(lambda at: spearmanr(at, times).statistic, -1, place)
        score = np.nan_to_num(steadiness) * on_text.mean(axis=-1)
        layer, head = np.unravel_index(np.argmax(score), score.shape)
        return int(layer), int(head)


def select_recording(params: Params, utterance: str | None, candidate: str) -> Selects:
    """Return selects of a held-out clip and of a candidate; the values given stand first."""
    require_files({SPEAKER.manifest: "audit"})
    rows = speaker_track(params).accepted()
    first = _utterance(rows, utterance).id
    held_out = [row.id for row in rows if row.split in HELD_OUT]
    candidates = [candidate, CHOSEN, RUNNER_UP, *params.candidates]
    return Selects(utterance=list(dict.fromkeys([first, *held_out])),
                   candidate=list(dict.fromkeys(candidates)))  # fmt: skip


def predict_recording(
    params: Params, utterance: str | None = None, candidate: str | int = "chosen"
) -> ForcedRecording:
    """Feed a recording's codes to a candidate and keep what it predicted at each frame.

    Without an utterance it is a held-out clip, the first by hash; candidates are named as for
    `find_candidate`.
    """
    require_files({SPEAKER.manifest: "audit", SPEAKER.codes: "codes"})
    row = _utterance(speaker_track(params).accepted(), utterance)
    name, folder = find_candidate(params, candidate)
    device = open_context(params).device
    speaker = row.speaker or params.train.speaker_name
    as_base = name == BASE and speaker.lower() not in speakers_of_model(folder)
    # The only kind of attention that shows its weights.
    tts = load_tts(folder, device, attention="eager", as_base=as_base)
    ids = SpecialIds.from_config(tts.model.config)
    arrays = read_corpus_codes(resolve_model(params.model), [row], SPEAKER)
    [example] = build_examples(
        [row], arrays, tts, ids, params.train.language,
        streaming=not params.score.non_streaming_mode,
        tags={row.id: row.language} if row.language else None,
    )  # fmt: skip
    batch, layout = make_batch([example], ids).to(device), example.layout
    vector = _speaker(tts, ids, row, speaker)
    surprise, p_end = _code_predictions(tts, batch, vector, ids)
    weights = _attention_weights(tts, batch, vector)
    places = {index: position for position, index in enumerate(layout.text_index)}
    role = len(example.text_ids) - layout.num_text_tokens
    columns = [places[index] for index in range(role, len(example.text_ids)) if index in places]
    first = layout.prefix_length - 1  # a frame is predicted by the position before it
    to_text = weights[:, :, first : first + layout.num_frames][..., columns]
    tokens = [tts.processor.tokenizer.decode([token]) for token in example.text_ids[role:].tolist()]
    codec = tts.model.speech_tokenizer
    return ForcedRecording(
        utterance=row,
        candidate=name,
        tokens=tuple(tokens[: len(columns)]),
        layout=layout,
        frames_per_s=codec.get_output_sample_rate() / codec.get_decode_upsample_rate(),
        codes=example.codes.numpy(),
        surprise=surprise.cpu().numpy().astype(np.float64),
        p_end=p_end.cpu().numpy().astype(np.float64),
        attention=to_text.cpu().numpy().astype(np.float64),
    )


def _code_predictions(
    tts: Tts, batch: Batch, vector: Tensor, ids: SpecialIds
) -> tuple[Tensor, Tensor]:
    """Return the surprise of each code, `[N, K]`, and the probability of the end, `[N + 1]`."""
    with torch.inference_mode():
        made = predict(tts.model, batch, vector)
        c0_logits = made.c0_logits.float()
        first = _surprise(c0_logits[:-1], made.c0_targets[:-1])[:, None]
        others = _surprise(torch.stack(made.sub_logits, dim=1).float(), made.sub_targets)
        surprise = torch.cat([first, others], dim=1)
        # Generation never samples the ids behind the codes, but for the end.
        allowed = torch.zeros_like(c0_logits)
        allowed[:, ids.first_unsampled_id :] = -torch.inf
        allowed[:, ids.codec_eos] = 0.0
        return surprise, (c0_logits + allowed).softmax(-1)[:, ids.codec_eos]


def _attention_weights(tts: Tts, batch: Batch, vector: Tensor) -> Tensor:
    """Return the weights of every head between all positions, `[A, H, L, L]`."""
    talker = tts.model.talker
    positions = torch.arange(batch.attention_mask.shape[-1], device=vector.device)
    with torch.inference_mode():
        attentions = talker.model(
            inputs_embeds=embed(talker, batch, vector),
            attention_mask=batch.attention_mask,
            position_ids=positions.expand(3, 1, -1),
            use_cache=False,
            output_attentions=True,
        ).attentions
    return torch.cat([layer.float() for layer in attentions])


def _utterance(rows: list[Utterance], wanted: str | None) -> Utterance:
    """Pick a clip by its id, or a held-out one that nobody chose."""
    by_id = {row.id: row for row in rows}
    if wanted is None:
        held_out = [row.id for row in rows if row.split in HELD_OUT]
        wanted = first_by_hash(held_out or list(by_id), 1)[0]
    if wanted not in by_id:
        facts = {"some": ", ".join(first_by_hash(list(by_id), 3)), "manifest": SPEAKER.manifest}
        raise user_error("explore.unknown_clip", "utterance", found=wanted, **facts)
    return by_id[wanted]


def _speaker(tts: Tts, ids: SpecialIds, row: Utterance, name: str) -> Tensor:
    """Return the vector that stands for the voice: the Base measures it, a checkpoint holds it."""
    if tts.model.tts_model_type == "base":
        return speaker_vector(tts, row.ref_audio)
    known = {speaker.lower(): number for speaker, number in ids.speakers.items()}
    if name.lower() not in known:
        facts = {"known": ", ".join(known), "found": name}
        raise user_error("explore.unknown_speaker", "train.speaker_name", **facts)
    table: Tensor = tts.model.talker.get_input_embeddings().weight
    return table[known[name.lower()]]


def _surprise(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the negative log probability of each target, nats; logits `[..., V]`."""
    return -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]


# --- tables and figures --------------------------------------------------------------------------


def spans(seen: ForcedRecording) -> pandas.DataFrame:
    """List the spans of the sequence: positions, and what lies on each of the two streams."""
    streams = STREAMS | {"frames": ("padding", f"{seen.codes.shape[1]} codes a frame, summed")}
    if seen.layout.streaming:
        streams |= {name: ("the text, then its end, then padding", streams[name][1])
                    for name in ("codec_bos", "frames", "codec_eos")}  # fmt: skip
    rows = [
        {"span": name, "positions": f"{span.start} to {span.stop - 1}", "count": len(span),
         "text stream": streams[name][0], "codec stream": streams[name][1]}
        for name, span in seen.layout.spans.items()
    ]  # fmt: skip
    return frame(rows, "span")


def sequence(seen: ForcedRecording) -> Plot:
    """Draw the sequence position by position: the text stream above the codec stream."""
    layout = seen.layout
    figure, axes = _new_axes(2.5)
    for name, span in layout.spans.items():
        has_text = any(layout.text_index[position] >= 0 for position in span)
        has_codec = name in ("speaker", "frames") or (
            name not in ("text", "tts_eos") and any(layout.codec_ids[at] >= 0 for at in span)
        )
        for y, used in ((1, has_text), (0, has_codec)):  # or padding alone
            axes.barh(
                y, len(span), left=span.start, height=0.72, color=SPAN_COLOURS[name],
                alpha=1.0 if used else 0.18, linewidth=0.5, edgecolor=LIGHT.card,
            )  # fmt: skip
        if len(span) > 4:
            axes.text(span.start + len(span) / 2, -0.52, f"{name} ({len(span)})", ha="center",
                      va="top", fontsize=8, color=LIGHT.quiet)  # fmt: skip
    first = min(index for index in layout.text_index if index >= 0) + 3  # after the role
    for position, index in enumerate(layout.text_index):
        if index >= first:
            token = _shown(seen.tokens[index - first])
            axes.text(position + 0.5, 1.46, token, rotation=90, ha="center", va="bottom",
                      fontsize=7.5, color=LIGHT.ink)  # fmt: skip
    axes.set_yticks((0, 1), ("codec", "text"))
    axes.set_ylim(-1.1, 3.6)
    axes.set_xlim(0, len(layout))
    axes.set_xlabel("position in the sequence", fontsize=9)
    return figure


def timeline(seen: ForcedRecording) -> Plot:
    """Draw the utterance over time: spectrogram, codes, surprise, probability of the end."""
    figure = Plot(figsize=(WIDTH_IN, 8.2), layout="constrained", facecolor=LIGHT.card)
    heights = {"height_ratios": (1.3, 1.0, 1.0, 0.8)}
    heard, coded, surprised, ending = figure.subplots(4, 1, sharex=True, gridspec_kw=heights)
    edges_s, num_codebooks = seen.edges_s, seen.codes.shape[1]
    samples, rate_hz = read_mono(seen.utterance.audio)
    levels = mel.levels(samples, rate_hz)[::-1]
    heard.imshow(
        levels, origin="lower", aspect="auto", cmap="magma", interpolation="nearest",
        extent=(0.0, len(samples) / rate_hz, 0, len(levels)),
    )  # fmt: skip
    heard.set_ylabel("mel band", fontsize=9)
    rows = np.arange(num_codebooks + 1) - 0.5
    for axes, values, colours, label, least in (
        (coded, seen.codes, "viridis", "code", None),
        (surprised, seen.surprise, "cividis", "surprise, nats", 0.0),
    ):
        shown = axes.pcolormesh(edges_s, rows, values.T, cmap=colours, vmin=least)
        figure.colorbar(shown, ax=axes, pad=0.01).set_label(label, fontsize=8)
        axes.set_ylabel("codebook", fontsize=9)
        axes.invert_yaxis()
    ending.semilogy(edges_s, np.maximum(seen.p_end, 1e-9), color=LIGHT.chosen, linewidth=1.6)
    ending.axvline(edges_s[-1], color=LIGHT.quiet, linewidth=0.9, linestyle=":")
    ending.set_ylabel("P(end)", fontsize=9)
    ending.set_ylim(1e-9, 2.0)
    ending.set_xlabel("time, s", fontsize=9)
    for axes in (heard, coded, surprised, ending):
        remove_frame(axes, LIGHT, label_size=8)
    return figure


def end_probabilities(*several: ForcedRecording) -> Plot:
    """Draw the probability of the end over time for several candidates and one recording."""
    figure, axes = _new_axes(2.8)
    colours = (LIGHT.base, LIGHT.chosen, LIGHT.other, LIGHT.ink)
    for index, seen in enumerate(several):
        axes.semilogy(
            seen.edges_s, np.maximum(seen.p_end, 1e-9), color=colours[index % len(colours)],
            linewidth=1.6, label=title(seen.candidate),
        )  # fmt: skip
    axes.axvline(several[0].edges_s[-1], color=LIGHT.quiet, linewidth=0.9, linestyle=":")
    axes.set_ylim(1e-9, 2.0)
    axes.set_xlabel("time, s (dotted: end of the recording)", fontsize=9)
    axes.set_ylabel("P(end)", fontsize=9)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=LIGHT.ink)
    return figure


def attention(seen: ForcedRecording, layer: int | None = None, head: int | None = None) -> Plot:
    """Draw the attention on each text token while each frame is predicted.

    Each frame's weights on the text are divided by their sum: where a head looks within the text,
    not how much of its attention the text has. Layers and heads are counted from 0; without a
    layer it is the head that reads most steadily, without a head the mean of the layer's.
    """
    if layer is None:
        layer, head = seen.monotonic_head()
    _check_head(seen, layer, head)
    weights = seen.attention[layer].mean(axis=0) if head is None else seen.attention[layer, head]
    share = float(weights.sum(axis=-1).mean())
    weights = weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-12)
    figure, axes = _new_axes(1.3 + 0.17 * len(seen.tokens))
    rows = np.arange(len(seen.tokens) + 1) - 0.5
    axes.pcolormesh(seen.edges_s, rows, weights.T, cmap="magma", vmin=0.0, vmax=1.0)
    axes.set_yticks(range(len(seen.tokens)), map(_shown, seen.tokens))
    axes.invert_yaxis()
    axes.set_xlabel("time, s", fontsize=9)
    which = "mean of its heads" if head is None else f"head {head}"
    axes.set_title(
        f"{title(seen.candidate)}, layer {layer}, {which}: {100 * share:.0f} % of its attention "
        "is on the text",
        fontsize=9, color=LIGHT.quiet, loc="left",
    )  # fmt: skip
    return figure


def _check_head(seen: ForcedRecording, layer: int, head: int | None) -> None:
    num_layers, num_heads = seen.attention.shape[:2]
    asked = (("layer", layer, num_layers), ("head", head or 0, num_heads))
    problems = [problem("explore.no_head", name, last=count - 1, found=value)
                for name, value, count in asked if not 0 <= value < count]  # fmt: skip
    raise_problems(problems, "The candidate has no such head.")


def surprise_table(*several: ForcedRecording) -> pandas.DataFrame:
    """Show the mean surprise of each codebook, nats a code; a code at random costs ln(size)."""
    return frame(
        [
            {"candidate": title(seen.candidate)}
            | {f"codebook {k}": number(value) for k, value in enumerate(seen.surprise.mean(0))}
            for seen in several
        ],
        "candidate",
    )


def _new_axes(height_in: float) -> tuple[Plot, Axes]:
    figure = Plot(figsize=(WIDTH_IN, height_in), layout="constrained", facecolor=LIGHT.card)
    axes = figure.subplots()
    remove_frame(axes, LIGHT, label_size=8)
    return figure, axes


def _shown(token: str) -> str:
    """Write a token so that a figure takes it literally."""
    return token.strip().replace("$", r"\$") or "␣"
