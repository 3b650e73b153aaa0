"""Draw what each position of a training sequence must predict, here and in the public recipe.

Nothing is placed by hand. The sequence is the package's layout; what is read where comes from the
package's own forward pass over a talker that answers with position numbers; the public recipe's
targets come from the gradient of the library loss that it calls, given the labels that it gives.

    python docs/figures/shift.py            # writes docs/figures/shift.svg
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor
from transformers.loss.loss_utils import ForCausalLMLoss

from voxadapt.model.forward import predict
from voxadapt.model.layout import NONE, Batch, Layout, build_layout, collate
from voxadapt.model.tokens import SpecialIds

FIGURE = Path(__file__).with_name("shift.svg")
NUM_TEXT, NUM_FRAMES, NUM_CODEBOOKS, CODEBOOK_SIZE, VOCABULARY = 2, 3, 5, 32, 64
NOTHING = "nothing"
IDS = SpecialIds(
    im_start=40, im_end=41, tts_pad=42, tts_bos=43, tts_eos=44, codec_pad=50, codec_bos=51,
    codec_eos=52, think=53, nothink=54, think_bos=55, think_eos=56, num_codebooks=NUM_CODEBOOKS,
    codebook_size=CODEBOOK_SIZE, codec_vocab_size=VOCABULARY, languages={}, speakers={},
)  # fmt: skip
#: Every code its own number, so that a target says which frame and codebook it is.
CODES = torch.arange(NUM_FRAMES * NUM_CODEBOOKS).reshape(NUM_FRAMES, NUM_CODEBOOKS)
SPECIAL_NAMES = {
    IDS.tts_pad: "pad", IDS.tts_bos: "bos", IDS.tts_eos: "eos", IDS.codec_pad: "pad",
    IDS.codec_bos: "bos", IDS.codec_eos: "EOS", IDS.nothink: "nothink",
    IDS.think_bos: "th_bos", IDS.think_eos: "th_eos",
}  # fmt: skip


@dataclass(frozen=True)
class Alignment:
    """Who predicts what in one sequence.

    Attributes:
        layout: Where the tokens lie.
        here_c0: Position to codec_0 target.
        public_c0: The same for the public recipe.
        here_hidden: Position whose hidden state completes each frame.
        public_hidden: The same for the public recipe.
        here_sub: Target of each head of the code predictor, in the first frame.
        public_sub: The same for the public recipe.
    """

    layout: Layout
    here_c0: dict[int, str]
    public_c0: dict[int, str]
    here_hidden: list[int]
    public_hidden: list[int]
    here_sub: list[str]
    public_sub: list[str]


def code_name(code: int) -> str:
    """Name a target: frame and codebook, or the end of speech."""
    if code == IDS.codec_eos:
        return "EOS"
    frame, codebook = divmod(code, NUM_CODEBOOKS)
    return f"f{frame}·{codebook}"


def position_talker() -> SimpleNamespace:
    """Return a talker whose hidden states are position numbers and whose heads pass them on."""

    def nothing(ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, 1)

    def number(inputs_embeds: Tensor, **_: object) -> SimpleNamespace:
        rows, length, _ = inputs_embeds.shape
        numbers = torch.arange(length, dtype=torch.float32)[None, :, None]
        return SimpleNamespace(last_hidden_state=numbers.expand(rows, length, 1))

    def both(inputs_embeds: Tensor, **_: object) -> SimpleNamespace:
        first = inputs_embeds[:, :1].expand_as(inputs_embeds)
        step = number(inputs_embeds).last_hidden_state
        return SimpleNamespace(last_hidden_state=torch.cat([first, step], dim=-1))

    def same(tensor: Tensor) -> Tensor:
        return tensor

    predictor = SimpleNamespace(
        get_input_embeddings=lambda: [nothing] * (NUM_CODEBOOKS - 1),
        get_output_embeddings=lambda: [same] * (NUM_CODEBOOKS - 1),
        small_to_mtp_projection=same,
        model=both,
    )
    return SimpleNamespace(
        text_projection=same,
        get_text_embeddings=lambda: nothing,
        get_input_embeddings=lambda: nothing,
        model=number,
        codec_head=same,
        code_predictor=predictor,
    )


def library_targets(labels: Tensor) -> list[int | None]:
    """Return what the library loss asks of each logit, given labels `[L]`; None where nothing."""
    logits = torch.zeros(1, len(labels), VOCABULARY, requires_grad=True)
    ForCausalLMLoss(logits, labels[None], VOCABULARY).backward()
    assert logits.grad is not None
    # Cross-entropy pulls up the logit of the target alone.
    return [int(row.argmin()) if bool(row.any()) else None for row in logits.grad[0]]


def align() -> Alignment:
    """Work out who predicts what."""
    layout = build_layout(NUM_TEXT, NUM_FRAMES, IDS)
    text = torch.arange(3 + NUM_TEXT)
    batch: Batch = collate(["figure"], [layout], [text], [CODES], IDS)
    found = predict(SimpleNamespace(talker=position_talker()), batch, None)
    read = found.c0_logits[:, 0].int().tolist()
    here_c0 = dict(zip(read, map(code_name, found.c0_targets.tolist()), strict=True))
    # The recipe drops the last input and the first label; the library loss then shifts again.
    public = library_targets(batch.labels[0, 1:])
    public_c0 = {at: code_name(code) for at, code in enumerate(public) if code is not None}
    frames = torch.nonzero(batch.frame_mask[0, :-1])[:, 0].tolist()
    sub = [NOTHING if c is None else code_name(c) for c in library_targets(CODES[0, 1:])]
    assert [int(head[0, 1]) for head in found.sub_logits] == list(range(1, NUM_CODEBOOKS))
    return Alignment(
        layout, here_c0, public_c0, found.sub_logits[0][:, 0].int().tolist(), frames,
        [code_name(code) for code in found.sub_targets[0].tolist()], sub,
    )  # fmt: skip


# --- drawing -----------------------------------------------------------------------------------

LEFT, CELL, ROW, TOP = 168, 56, 30, 64
INK, FAINT, RIGHT_FILL, WRONG_FILL, PLAIN = "#222222", "#6b6b6b", "#cfe3f5", "#f8d3b0", "#f4f4f4"
STYLE = "font-family='Helvetica, Arial, sans-serif' font-size='12'"


def words(
    x: float, y: float, text: str, fill: str = INK, anchor: str = "start", more: str = ""
) -> str:
    """Return a line of text."""
    place = f"x='{x:g}' y='{y:g}' fill='{fill}' text-anchor='{anchor}'"
    return f"<text {place} {more}>{escape(text)}</text>"


def heading(y: float, text: str) -> str:
    """Return a title of a panel."""
    return words(LEFT, y, text, more="font-weight='bold'")


def cell(x: float, y: float, text: str, fill: str, wide: float = 1) -> str:
    """Return a box with a word in its middle."""
    width = CELL * wide - 3
    size = f"width='{width:g}' height='{ROW - 4}' rx='3'"
    middle = words(x + width / 2, y + 17, text, anchor="middle")
    return f"<rect x='{x:g}' y='{y:g}' {size} fill='{fill}'/>{middle}"


def row_of_cells(y: float, label: str, cells: list[tuple[str, str]]) -> list[str]:
    """Return a labelled row; empty words leave a gap."""
    drawn = [words(LEFT - 12, y + 17, label, anchor="end")]
    return drawn + [
        cell(LEFT + n * CELL, y, text, fill) for n, (text, fill) in enumerate(cells) if text
    ]


def place_name(at: int, p0: int) -> str:
    """Name a position by its distance from the first frame."""
    return "p0" if at == p0 else f"p0{at - p0:+d}"


def draw(alignment: Alignment) -> str:
    """Return the figure as SVG."""
    layout = alignment.layout
    size, p0 = len(layout), layout.prefix_length
    text_words = [
        SPECIAL_NAMES.get(known, f"t{at - 3}" if at >= 3 else ("start", "role", "\\n")[at])
        for known, at in zip(layout.text_ids, layout.text_index, strict=True)
    ]
    codec_words = [
        f"f{frame}" if frame != NONE else SPECIAL_NAMES.get(known, "")
        for known, frame in zip(layout.codec_ids, layout.frame_index, strict=True)
    ]
    assert layout.speaker_position is not None
    codec_words[layout.speaker_position] = "speaker"
    last = layout.label_positions[-1] - 1
    here = [alignment.here_c0.get(at, "") for at in range(size)]
    public = [alignment.public_c0.get(at, NOTHING if at == last else "") for at in range(size)]
    parts = [heading(24, "Codebook 0: what each position is asked to predict")]
    for at in range(size):
        middle = LEFT + at * CELL + CELL / 2
        parts.append(words(middle, TOP - 8, place_name(at, p0), FAINT, "middle"))
    y = TOP
    for label, row in (("text input", text_words), ("codec input", codec_words)):
        parts += row_of_cells(y, label, [(word, PLAIN) for word in row])
        y += ROW
    y += 8
    for label, row in (("target here", here), ("target, public recipe", public)):
        filled = [
            (word, RIGHT_FILL if word == good else WRONG_FILL)
            for word, good in zip(row, here, strict=True)
        ]
        parts += row_of_cells(y, label, filled)
        y += ROW
    y += 14
    for note in (
        "f1·0 is codebook 0 of frame 1. Here the row of bos predicts frame 0, and the last frame "
        "the end of speech.",
        "The public recipe shifts the labels, and the loss that it calls shifts them again: every "
        "target comes a frame early,",
        "frame 0 is asked of a row before speech begins, the end before its last frame.",
    ):
        parts.append(words(LEFT, y, note, FAINT))
        y += 17
    y += 26
    title = "The other codebooks of frame 0: the state that the code predictor reads, its targets"
    parts.append(heading(y, title))
    y += 14
    for label, hidden, targets in (
        ("here", alignment.here_hidden[0], alignment.here_sub),
        ("public recipe", alignment.public_hidden[0], alignment.public_sub),
    ):
        parts.append(words(LEFT - 12, y + 17, label, anchor="end"))
        fill = RIGHT_FILL if hidden == alignment.here_hidden[0] else WRONG_FILL
        parts.append(cell(LEFT, y, f"state at {place_name(hidden, p0)}", fill, 2))
        for n, (target, right) in enumerate(zip(targets, alignment.here_sub, strict=True)):
            fill = RIGHT_FILL if target == right else WRONG_FILL
            parts.append(cell(LEFT + (2.4 + 2.2 * n) * CELL, y, f"head {n}: {target}", fill, 2))
        y += ROW
    y += 14
    for note in (
        f"The model has 16 codebooks and 15 heads; {NUM_CODEBOOKS} and {NUM_CODEBOOKS - 1} are "
        "drawn. The state at p0-1 has produced codebook 0 of frame 0, as in generation;",
        "the state at p0 has already read every code of the frame. The second shift moves the "
        "heads' targets too: codebook 1 is never learnt.",
    ):
        parts.append(words(LEFT, y, note, FAINT))
        y += 17
    width, height = LEFT + size * CELL + 20, y + 4
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' "
        f"width='{width:g}' height='{height:g}' role='img' {STYLE}>"
    )
    name = "<title>Targets of a training sequence, here and in the public recipe</title>"
    paper = f"<rect width='{width:g}' height='{height:g}' fill='white'/>"
    return "\n".join([head, name, paper, *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    FIGURE.write_text(draw(align()), encoding="utf-8")
