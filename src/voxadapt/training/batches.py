"""From utterances and their codes to batches, in an order that depends on the seed alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from voxadapt.core.errors import Problem, UserError, raise_problems
from voxadapt.core.problems import user_error
from voxadapt.data.manifest import Utterance
from voxadapt.model.layout import (
    NUM_CLOSING_TOKENS,
    NUM_ROLE_TOKENS,
    Batch,
    Layout,
    build_layout,
    collate,
)
from voxadapt.model.stock import Tts
from voxadapt.model.tokens import SpecialIds

_POOL_WINDOWS = 64  # clips are sorted by length within this many optimizer steps
_JITTER = 0.02  # of a length: a corpus of a single pool does not form the same steps every epoch


@dataclass(frozen=True)
class GeneratedUtterance:
    """A text whose codes come from a model instead of a recording."""

    id: str
    text: str
    language: str
    split: str = "train"


@dataclass(frozen=True)
class Example:
    """One utterance, ready to be batched."""

    id: str  # id of the utterance
    layout: Layout  # where its tokens lie
    text_ids: Tensor  # role and text ids `[3 + T]`
    codes: Tensor  # `[N, K]` int16


def build_examples(
    utterances: Iterable[Utterance | GeneratedUtterance],
    codes: Mapping[str, np.ndarray],
    tts: Tts,
    ids: SpecialIds,
    language: str = "auto",
    streaming: bool = False,
    tags: Mapping[str, str] | None = None,
) -> list[Example]:
    """Tokenise and lay out utterances exactly as inference does.

    Args:
        utterances: Accepted utterances.
        codes: Codes `[N, K]` by id.
        tts: `qwen_tts.Qwen3TTSModel`, whose text template and processor are used.
        ids: Special ids of the model.
        language: Prefix of the sequences: `auto`, or a language of the model. It is the one that
            scoring speaks with.
        streaming: Lay the text over the frame rows.
        tags: Language of single utterances by id, instead of `language`.

    Raises:
        UserError: With one problem for each row that cannot be laid out.
    """
    language_id = ids.language_id(language)
    tag_ids = {i: ids.language_id(tag, f"{i}: language") for i, tag in (tags or {}).items()}
    examples: list[Example] = []
    problems: list[Problem] = []
    for row in utterances:
        try:
            array = _checked_codes(row.id, codes.get(row.id), ids)
            text_ids = tokenize(tts, row.text, ids, row.id)
        except UserError as error:
            problems.extend(error.problems)
            continue
        num_text_tokens = len(text_ids) - NUM_ROLE_TOKENS
        tag = tag_ids.get(row.id, language_id)
        layout = build_layout(num_text_tokens, len(array), ids, tag, streaming)
        frames = torch.from_numpy(np.ascontiguousarray(array, dtype=np.int16))
        examples.append(Example(row.id, layout, text_ids, frames))
    raise_problems(problems, "Some utterances cannot be trained on.")
    return examples


def _checked_codes(name: str, codes: np.ndarray | None, ids: SpecialIds) -> np.ndarray:
    """Return codes that fit the model, `[N, K]`."""
    if codes is None or codes.ndim != 2 or codes.shape[1] != ids.num_codebooks:
        found = "none" if codes is None else list(codes.shape)
        raise user_error("training.codes_shape", name, count=ids.num_codebooks, found=found)
    if len(codes) == 0 or codes.min() < 0 or codes.max() >= ids.codebook_size:
        found = f"{codes.min()} to {codes.max()}" if len(codes) else "no frame"
        raise user_error("training.codes_range", name, largest=ids.codebook_size - 1, found=found)
    return codes


def tokenize(tts: Tts, text: str, ids: SpecialIds, where: str) -> Tensor:
    """Return the role and text ids `[3 + T]` that stock generation would read.

    Raises:
        UserError: When the text is empty, or the tokenizer does not lay out a turn as the model
            slices it: three ids, the text, five ids.
    """
    turn = tts._tokenize_texts([tts._build_assistant_text(text)])[0][0].cpu()
    if len(turn) <= NUM_ROLE_TOKENS + NUM_CLOSING_TOKENS:
        raise user_error("training.no_text", where, found=repr(text))
    if turn[0] != ids.im_start or turn[-NUM_CLOSING_TOKENS] != ids.im_end:
        facts = {"before": NUM_ROLE_TOKENS, "after": NUM_CLOSING_TOKENS}
        found = f"{turn[:4].tolist()} … {turn[-6:].tolist()}"
        raise user_error("training.no_turn", where, found=found, **facts)
    return turn[:-NUM_CLOSING_TOKENS]


def make_batch(examples: Sequence[Example], ids: SpecialIds) -> Batch:
    """Collate examples into a right-padded batch."""
    return collate(
        [e.id for e in examples],
        [e.layout for e in examples],
        [e.text_ids for e in examples],
        [e.codes for e in examples],
        ids,
    )


def epoch_windows(
    lengths: Sequence[int], batch_size: int, accumulation: int, seed: int, epoch: int
) -> list[list[list[int]]]:
    """Order one epoch: optimizer steps, each a list of batches, each a list of indices.

    All examples occur once. A step's examples depend on `batch_size * accumulation` only, so that
    8 x 1, 2 x 4 and 1 x 8 see the same ones together.

    Examples of similar length share a step, so that little of a batch is padding: the shuffled
    corpus is cut into pools, each is sorted by length, give or take 2 %, and cut into steps, which
    are shuffled again. The loss of a step is a mean over all of its tokens, so that every step
    weighs the same, whether its clips are short or long.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths)).tolist()
    about = np.asarray(lengths) * rng.uniform(1 - _JITTER, 1 + _JITTER, len(lengths))
    size = batch_size * accumulation
    windows: list[list[int]] = []
    for start in range(0, len(order), size * _POOL_WINDOWS):
        pool = sorted(order[start : start + size * _POOL_WINDOWS], key=lambda i: about[i])
        windows += [pool[at : at + size] for at in range(0, len(pool), size)]
    shuffled = [sorted(windows[n], key=lambda i: lengths[i]) for n in rng.permutation(len(windows))]
    return [
        [window[at : at + batch_size] for at in range(0, len(window), batch_size)]
        for window in shuffled
    ]


def balanced_epoch(
    speakers: Sequence[str], frames: Sequence[int], balance: float, seed: int, epoch: int
) -> list[int]:
    """Draw the clips of an epoch so that no speaker has many more frames than another.

    A speaker with F frames in all gets a share of the epoch's frames that is proportional to F **
    (1 - balance): its own at 0, the same as every other one's at 1. An epoch holds about as many
    frames as the corpus. A speaker's clips are drawn in shuffled rounds that go on from epoch to
    epoch: all of them occur equally often, give or take once. `speakers` and `frames` are those of
    each example; epochs are counted from 1. Examples are indices, some of them several times or not
    at all, as many in every epoch.
    """
    drawn: list[int] = []
    members: dict[str, list[int]] = {}
    for index, speaker in enumerate(speakers):
        members.setdefault(speaker, []).append(index)
    names = sorted(members)
    totals = np.array([sum(frames[i] for i in members[name]) for name in names], float)
    shares = totals ** (1.0 - balance)
    shares *= totals.sum() / shares.sum()
    for number, name in enumerate(names):
        own = members[name]
        count = max(1, round(len(own) * shares[number] / totals[number]))
        for place in range((epoch - 1) * count, epoch * count):
            turn, position = divmod(place, len(own))
            if position == 0 or place == (epoch - 1) * count:
                order = np.random.default_rng([seed, number, turn, 1]).permutation(len(own))
            drawn.append(own[order[position]])
    return drawn


@dataclass(frozen=True)
class Share:
    """The rows of a batch that one of several processes computes."""

    rows: list[int]  # places in the batch
    #: What its loss is multiplied by, because processes average their gradients. 0 where no row is
    #: left for it: all have to take part, so it computes a row of another process.
    factor: int


def share_of(size: int, rank: int, num_processes: int) -> Share:
    """Deal out a batch, row by row; sorted by length, all get about as much."""
    rows = list(range(rank, size, num_processes))
    return Share(rows, num_processes) if rows else Share([0], 0)


def draw_frame_keep_mask(num_rows: int, length: int, largest_share: float) -> Tensor | None:
    """Draw the frames whose codes the talker gets as input.

    With few utterances teacher forcing memorises frames from the frames before them; a talker that
    misses some of these has to read the text. Targets are untouched. A share between 0 and
    `largest_share` is hidden of each utterance. It is drawn from torch's random stream on the CPU,
    which the training state keeps, and for a whole batch, whichever process computes its rows. A
    largest share of 0 hides nothing and draws nothing. The mask is `[B, L]` bool on the CPU, or
    None when nothing is hidden.
    """
    if largest_share == 0.0:
        return None
    share = torch.rand(num_rows, 1) * largest_share
    return torch.rand(num_rows, length) >= share
