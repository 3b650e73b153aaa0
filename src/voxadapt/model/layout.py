"""Where every token of a training sequence lies, as data.

Each position sums a text embedding and a codec embedding. For T text tokens and N frames:

    span            text id                     codec id
    role (3)        im_start assistant newline  -
    tag (3 or 4)    tts_pad                     nothink|think, think_bos, [language], think_eos
    speaker (1)     tts_pad                     - (the speaker vector)
    tts_bos (1)     tts_bos                     pad
    text (T)        the text                    pad                     non-streaming only
    tts_eos (1)     tts_eos                     pad                     non-streaming only
    codec_bos (1)   tts_pad | first text id     bos
    frames (N)      tts_pad | the other ids     the K codes of a frame
    codec_eos (1)   as frames                   eos

In streaming sequences the text has no span of its own: its first token lies on the bos row, the
others, `tts_eos` and then `tts_pad` follow on the frame rows. Everything before `frames` is what
`Qwen3TTSForConditionalGeneration.generate` prefills; tests hold the two against each other.

A label sits at the position whose codec id it is: the label of a position is predicted by the
position *before* it. That one shift is made in `forward.py`, and nowhere else.

Shape legend: B rows of a batch, L positions, N frames, K codebooks, T text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor

from voxadapt.model.tokens import SpecialIds

NONE = -1  # no id on this stream at this position
IGNORE = -100  # no label at this position
NUM_ROLE_TOKENS = 3  # `generate` slices [:3], [3:-5] and [-5:] off the tokenised turn
NUM_CLOSING_TOKENS = 5


@dataclass(frozen=True)
class Layout:
    """One sequence: named spans and the ids that are known before the utterance is."""

    num_text_tokens: int  # T
    num_frames: int  # N
    streaming: bool  # text lies on the frame rows
    spans: dict[str, range]  # name to half-open range, in order, disjoint, covering all positions
    text_ids: tuple[int, ...]  # special text id of each position, or NONE
    #: Index into the utterance's role and text ids of each position, or NONE.
    text_index: tuple[int, ...]
    codec_ids: tuple[int, ...]  # special codec id of each position, or NONE
    frame_index: tuple[int, ...]  # frame of each position, or NONE

    def __post_init__(self) -> None:
        assert self.num_text_tokens >= 1, "a sequence needs at least one text token"
        assert self.num_frames >= 1, "a sequence needs at least one frame"
        position = 0
        for span in self.spans.values():
            assert span.start == position, "spans are not contiguous"
            position = span.stop
        for column in (self.text_ids, self.text_index, self.codec_ids, self.frame_index):
            assert len(column) == position, "spans do not cover the columns"

    def __len__(self) -> int:
        return len(self.text_ids)

    @property
    def prefix_length(self) -> int:
        """Positions before the first frame (p0): what inference prefills."""
        return self.spans["frames"].start

    @property
    def speaker_position(self) -> int | None:
        """Position of the speaker vector, if the sequence has one."""
        return self.spans["speaker"].start if "speaker" in self.spans else None

    @property
    def label_positions(self) -> range:
        """Positions whose codec_0 id is a target: all frames, then the end of speech (N + 1)."""
        return range(self.spans["frames"].start, self.spans["codec_eos"].stop)


def build_layout(
    num_text_tokens: int,
    num_frames: int,
    ids: SpecialIds,
    language_id: int | None = None,
    streaming: bool = False,
    has_speaker: bool = True,
) -> Layout:
    """Lay out one sequence of T text tokens, without role and closing ones, and N frames.

    Without the codec id of a language it has the Auto prefix. In a streaming sequence the text is
    spread over the frame rows, instead of placed before them.
    """
    spans: dict[str, range] = {}
    text_ids: list[int] = []
    text_index: list[int] = []
    codec_ids: list[int] = []
    frame_index: list[int] = []

    def add(
        name: str,
        text: Sequence[int],
        index: Sequence[int],
        codec: Sequence[int],
        frames: Sequence[int] | None = None,
    ) -> None:
        start = len(text_ids)
        spans[name] = range(start, start + len(codec))
        text_ids.extend(text)
        text_index.extend(index)
        codec_ids.extend(codec)
        frame_index.extend(frames if frames is not None else [NONE] * len(codec))

    def add_special(name: str, text_id: int, codec: Sequence[int]) -> None:
        add(name, [text_id] * len(codec), [NONE] * len(codec), codec)

    role = list(range(NUM_ROLE_TOKENS))
    text = list(range(NUM_ROLE_TOKENS, NUM_ROLE_TOKENS + num_text_tokens))
    add("role", [NONE] * len(role), role, [NONE] * len(role))
    if language_id is None:
        add_special("tag", ids.tts_pad, [ids.nothink, ids.think_bos, ids.think_eos])
    else:
        add_special("tag", ids.tts_pad, [ids.think, ids.think_bos, language_id, ids.think_eos])
    if has_speaker:
        add_special("speaker", ids.tts_pad, [NONE])
    add_special("tts_bos", ids.tts_bos, [ids.codec_pad])
    if not streaming:
        add("text", [NONE] * len(text), text, [ids.codec_pad] * len(text))
        add_special("tts_eos", ids.tts_eos, [ids.codec_pad])
        text_row = [ids.tts_pad] * (num_frames + 2)
        index_row = [NONE] * (num_frames + 2)
    else:
        size = num_frames + 2  # bos row, frames, eos row
        padding = [ids.tts_pad] * max(0, size - len(text) - 1)
        text_row = ([NONE] * len(text) + [ids.tts_eos] + padding)[:size]
        index_row = (text + [NONE] * (1 + len(padding)))[:size]
    add("codec_bos", text_row[:1], index_row[:1], [ids.codec_bos])
    frames = list(range(num_frames))
    add("frames", text_row[1:-1], index_row[1:-1], [NONE] * num_frames, frames)
    add("codec_eos", text_row[-1:], index_row[-1:], [ids.codec_eos])
    return Layout(
        num_text_tokens, num_frames, streaming, spans,
        tuple(text_ids), tuple(text_index), tuple(codec_ids), tuple(frame_index),
    )  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """Sequences padded on the right.

    Masks say where a stream contributes; under a false mask the id is 0 and means nothing.
    """

    names: tuple[str, ...]  # id of the utterance of each row, for messages
    text_ids: Tensor  # `[B, L]`
    text_mask: Tensor  # `[B, L]` bool
    codec_ids: Tensor  # `[B, L]` special ids; frames are in `codes`
    codec_mask: Tensor  # `[B, L]` bool
    codes: Tensor  # `[B, L, K]`
    frame_mask: Tensor  # `[B, L]` bool
    speaker_mask: Tensor  # `[B, L]` bool, at most one position a row
    labels: Tensor  # `[B, L]` codec_0 id *of* each target position, else IGNORE
    attention_mask: Tensor  # `[B, L]` 1 on real positions

    @property
    def num_frames(self) -> int:
        """Frames in all rows."""
        return int(self.frame_mask.sum())

    @property
    def num_labels(self) -> int:
        """codec_0 targets in all rows: frames plus one end of speech a row."""
        return int((self.labels != IGNORE).sum())

    @cached_property
    def label_places(self) -> tuple[Tensor, Tensor]:
        """Row and position of every target, each `[P]`."""
        row, position = torch.nonzero(self.labels != IGNORE, as_tuple=True)
        return row, position

    @cached_property
    def frame_places(self) -> tuple[Tensor, Tensor]:
        """Row and position of every frame, each `[M]`."""
        row, position = torch.nonzero(self.frame_mask, as_tuple=True)
        return row, position

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device.

        Places are looked up before: on a GPU that would wait for all that it has still to do.
        """
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "names"}
        moved = replace(self, **{name: t.to(device) for name, t in tensors.items()})
        for name in ("label_places", "frame_places"):
            moved.__dict__[name] = tuple(places.to(device) for places in getattr(self, name))
        return moved


def collate(
    names: Sequence[str],
    layouts: Sequence[Layout],
    text_ids: Sequence[Tensor],
    codes: Sequence[Tensor],
    ids: SpecialIds,
) -> Batch:
    """Fill layouts with their utterances and pad them on the right.

    Of each: role and text ids `[3 + T]`, and codes `[N, K]`.
    """
    size, length = len(layouts), max(len(layout) for layout in layouts)
    text_BL = torch.full((size, length), NONE)
    codec_BL = torch.full((size, length), NONE)
    codes_BLK = torch.zeros(size, length, ids.num_codebooks, dtype=torch.long)
    frame_mask = torch.zeros(size, length, dtype=torch.bool)
    speaker_mask = torch.zeros(size, length, dtype=torch.bool)
    labels = torch.full((size, length), IGNORE)
    attention = torch.zeros(size, length, dtype=torch.long)
    for row, (layout, text, frames) in enumerate(zip(layouts, text_ids, codes, strict=True)):
        assert text.shape == (NUM_ROLE_TOKENS + layout.num_text_tokens,), "text and layout differ"
        assert frames.shape == (layout.num_frames, ids.num_codebooks), "codes and layout differ"
        index = torch.tensor(layout.text_index)
        fixed = torch.tensor(layout.text_ids)
        text_BL[row, : len(layout)] = torch.where(
            index >= 0, text.long()[index.clamp(min=0)], fixed
        )
        codec_BL[row, : len(layout)] = torch.tensor(layout.codec_ids)
        span = layout.spans["frames"]
        codes_BLK[row, span.start : span.stop] = frames.long()
        frame_mask[row, span.start : span.stop] = True
        if layout.speaker_position is not None:
            speaker_mask[row, layout.speaker_position] = True
        targets = layout.label_positions
        labels[row, targets.start : targets.stop - 1] = frames[:, 0].long()
        labels[row, targets.stop - 1] = ids.codec_eos
        attention[row, : len(layout)] = 1
    return Batch(
        names=tuple(names),
        text_ids=text_BL.clamp(min=0),
        text_mask=text_BL != NONE,
        codec_ids=codec_BL.clamp(min=0),
        codec_mask=codec_BL != NONE,
        codes=codes_BLK,
        frame_mask=frame_mask,
        speaker_mask=speaker_mask,
        labels=labels,
        attention_mask=attention,
    )
