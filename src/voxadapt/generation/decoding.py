"""Speech codes of a batch of texts: the token loop of `generate`, without what makes it slow.

The stock call builds the prompt, then runs Hugging Face's `generate` once for the talker and, in
every frame, once more for the code predictor. Here the prompt stays the stock one; the loop is
written out over the stock weights with caches that are allocated once. Greedy codes are those of
the stock loop; sampled codes follow the same distribution.

Three things differ on purpose. Each row draws from a random stream of its own, so that what is
said does not depend on the company in its batch, and two checkpoints meet the same numbers. Each
row has its own limit of frames. And a row that has ended leaves the batch.

On a GPU a frame is recorded once as a CUDA graph and replayed (`voxadapt.generation.cuda_graph`).

Shape legend: B rows, S slots, A slots in use, T positions of a prompt, N frames, D width, K
codebooks, V codes that codebook 0 may have.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from types import SimpleNamespace, TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from voxadapt.generation import cuda_graph as capture
from voxadapt.generation.sampling import Sampler, uniform
from voxadapt.generation.stack import Product, Stack, Weights

VERSION = 4  # of what a seed says: enters every key under which generated speech is kept
SPARE_S = 4.0  # added to a text's limit, for short texts
SHRINK_AT = 0.75  # rows that have ended are taken out when this share, or fewer, still speak
ROUND = 256  # positions that a recording has room for are a multiple of this
LOOK_EVERY = 4  # frames that are replayed before the host asks who still speaks


def frame_rate_hz(tts: Any) -> float:
    """Read the codec's frames per second from the model."""
    codec = tts.model.speech_tokenizer
    return codec.get_output_sample_rate() / codec.get_decode_upsample_rate()


def text_tokens(tts: Any, text: str) -> int:
    """Count the text tokens of a sentence."""
    return len(tts.processor(text=[text])["input_ids"][0])


def token_limit(
    num_text_tokens: int, max_seconds_per_token: float, frames_per_s: float = 12.5
) -> int:
    """Return where generation stops for a text: the frames it can need at most, and its end."""
    seconds = max_seconds_per_token * num_text_tokens + SPARE_S
    return math.ceil(seconds * frames_per_s) + 1


@dataclass(frozen=True)
class Ending:
    """How a row of the last batch ended.

    Attributes:
        num_frames: Frames of codes.
        ended: The model chose the end; False where the limit cut it off.
    """

    num_frames: int
    ended: bool


class Decoding:
    """Let the stock calls of a model use the loop of this module, within a `with` block.

        with Decoding(tts.model, seeds=[1, 2], max_new_tokens=[90, 120]) as decoding:
            wavs, _ = tts.generate_custom_voice(text=[…, …], …)
        decoding.endings

    Args:
        model: Stock `Qwen3TTSForConditionalGeneration`.
        seeds: Of each row's random stream.
        max_new_tokens: Where each row stops; one more than the frames it can give.

    Attributes:
        endings: One a row, once the call has returned.
    """

    def __init__(self, model: Any, seeds: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        assert len(seeds) == len(max_new_tokens)
        self.endings: list[Ending] = []
        self._talker = model.talker
        self._seeds, self._limits = list(seeds), list(max_new_tokens)

    def __enter__(self) -> Decoding:
        self._talker.generate = self._generate
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._talker.generate

    def _generate(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        trailing_text_hidden: Tensor,
        tts_pad_embed: Tensor,
        **options: Any,
    ) -> SimpleNamespace:
        """Answer as `talker.generate` would, as far as the stock call reads the answer."""
        made = generate_codes(
            self._talker,
            inputs_embeds,
            attention_mask,
            trailing_text_hidden,
            tts_pad_embed,
            seeds=self._seeds,
            limits=self._limits,
            options=options,
        )
        codes_BNK, hidden_BND = made[0].clone(), made[1].clone()  # ordinary tensors again
        self.endings = made[2]
        steps: list[tuple[tuple[Tensor, ...], Tensor | None]] = [((hidden_BND[:, :1],), None)]
        for frame in range(codes_BNK.shape[1]):
            steps.append(((hidden_BND[:, frame + 1 : frame + 2],), codes_BNK[:, frame]))
        return SimpleNamespace(hidden_states=steps)


@torch.inference_mode()
def generate_codes(
    talker: Any,
    inputs_embeds: Tensor,
    attention_mask: Tensor,
    trailing_text_hidden: Tensor,
    tts_pad_embed: Tensor,
    *,
    seeds: Sequence[int],
    limits: Sequence[int],
    options: dict[str, Any],
) -> tuple[Tensor, Tensor, list[Ending]]:
    """Generate frames until every row has ended or reached its limit.

    Args:
        talker: Stock `Qwen3TTSTalkerForConditionalGeneration`.
        inputs_embeds: Prompts `[B, T, D]`, padded on the left.
        attention_mask: `[B, T]`, 0 on padding.
        trailing_text_hidden: `[B, S, D]`: what is added to the frames, first to last; after them
            `tts_pad_embed`.
        tts_pad_embed: `[1, 1, D]`.
        seeds: Of each row's random stream.
        limits: Tokens of codebook 0 a row may have; the last of them gives no frame.
        options: What the stock call passes to `talker.generate`: sampling of talker and
            sub-talker, `eos_token_id`, `suppress_tokens`, `min_new_tokens`.

    Returns:
        Codes `[B, N, K]`, with the end-of-speech id in codebook 0 after a row's end; the talker's
        hidden states `[B, N + 1, D]`, the prompt's last first; how each row ended.
    """
    longest = max(limits)
    assert longest >= 2, "a limit below two tokens leaves no frame"
    rows, prompt_length = inputs_embeds.shape[:2]
    room = _Room(rows, longest, prompt_length + longest, trailing_text_hidden.shape[1])
    frames = _frames(talker, room, options)
    frames.load(
        inputs_embeds, attention_mask, trailing_text_hidden, tts_pad_embed, seeds, list(limits)
    )
    for _ in range(longest):
        if not frames.next():
            break
    return frames.results(rows)


@dataclass(frozen=True)
class _Room:
    """What a batch needs.

    Attributes:
        rows: B.
        tokens: Of codebook 0.
        positions: Of the prompt and of all tokens.
        texts: Embeddings that are added to frames.
    """

    rows: int
    tokens: int
    positions: int
    texts: int

    def holds(self, other: _Room) -> bool:
        """Whether another batch fits in."""
        return all(a >= b for a, b in zip(astuple(self), astuple(other), strict=True))

    def rounded(self) -> _Room:
        """Leave room for the next batches, which are longer."""
        lengths = (self.tokens, self.positions, self.texts)
        return _Room(self.rows, *(math.ceil(value / ROUND) * ROUND for value in lengths))


class _Frames:
    """The frames of a batch, as they are made.

    All that changes lies in tensors that stay where they are, and `_choose` and `_advance` neither
    read a value back nor let a shape depend on one: on a GPU they can be recorded and replayed.
    Rows are those of the batch. A slot is a place at which a row is computed; `count` are in use.

    Args:
        talker: Stock talker.
        joined: Its weights.
        room: For the largest batch.
        options: As for `generate_codes`.
        counts_on_device: Needed for recording.
    """

    def __init__(
        self,
        talker: Any,
        joined: _Joined,
        room: _Room,
        options: dict[str, Any],
        counts_on_device: bool = False,
    ) -> None:
        self.room, self.options = room, options
        self._sampler, sub_sampler = Sampler.talker(options), Sampler.sub_talker(options)
        self._stack = Stack(joined.talker, room.rows, room.positions, counts_on_device)
        self._predictor = _Predictor(joined, room.rows, sub_sampler)
        self._too_early = int(options.get("min_new_tokens") or 0)
        eos = int(options["eos_token_id"])
        self._head, self._code_V = joined.head(talker, options["suppress_tokens"])
        device = self._code_V.device
        self._is_eos_V = self._code_V == eos
        S, D = room.rows, talker.config.hidden_size
        K, V = talker.config.num_code_groups, len(self._code_V)
        like = joined.talker.norm

        def whole(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.long, device=device)

        # Of a row.
        self._uniform_BNK = torch.zeros(S, room.tokens, K, device=device)
        self._text_BND = like.new_zeros(S, room.texts + 1, D)
        self._codes_BNK = whole(S, room.tokens, K)
        self._blank_K = whole(K)
        self._blank_K[0] = eos
        self._hidden_BND = like.new_zeros(S, room.tokens + 1, D)
        self._num_frames_B, self._ended_B = whole(S), whole(S)
        # Of a slot.
        self._row_S, self._limit_S, self._c0_S = whole(S), whole(S), whole(S)
        self._made_S, self._end_S, self._speaks_S = whole(S), whole(S).bool(), whole(S).bool()
        self._last_SD = like.new_zeros(S, D)
        self._draws_SK = torch.zeros(S, K, device=device)
        self._had_SV: Tensor | None = None
        if self._sampler.penalty is not None:
            self._had_SV = whole(S, V).bool()
        # Of all.
        self._frame_1 = whole(1)
        self.count = S
        self._replays: dict[int, Callable[[], None]] = {}
        self._replayed = 0

    def load(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        trailing_text_hidden: Tensor,
        tts_pad_embed: Tensor,
        seeds: Sequence[int],
        limits: list[int],
    ) -> None:
        """Begin a batch, of as many rows as there is room for or fewer; read its prompts."""
        B, S = len(inputs_embeds), self.room.rows
        device = self._frame_1.device
        K = self._uniform_BNK.shape[-1]
        drawn = torch.stack([uniform(seed, max(limits), K) for seed in seeds])
        self._uniform_BNK[:B, : max(limits)] = drawn.to(device)
        self._text_BND[:] = tts_pad_embed
        self._text_BND[:B, : trailing_text_hidden.shape[1]] = trailing_text_hidden
        self._codes_BNK[:] = self._blank_K
        self._num_frames_B.zero_()
        self._ended_B.zero_()
        self._row_S.copy_(torch.arange(S, device=device))
        self._limit_S.zero_()
        self._limit_S[:B] = torch.tensor(limits, device=device)
        self._made_S.zero_()
        self._end_S.zero_()
        self._speaks_S.zero_()
        self._speaks_S[:B] = True
        if self._had_SV is not None:
            self._had_SV.zero_()
        self._frame_1.zero_()
        self._replayed = 0
        self._last_SD.zero_()
        self._last_SD[:B] = self._stack.prompt(inputs_embeds, attention_mask)
        self._hidden_BND[:, 0] = self._last_SD
        self.count = min((size for size in self._replays if size >= B), default=B)
        self._stack.resize(self.count)

    def next(self) -> bool:
        """Make a frame; return False when no row speaks any more."""
        if self._replays:
            self._replays[self.count]()
            self._replayed += 1
            if self._replayed % LOOK_EVERY:
                return True
            speaking = self._num_speaking()
            smaller = min(size for size in self._replays if size >= max(speaking, 1))
            if smaller < self.count:
                self._keep(smaller)
            return speaking > 0
        self._choose()
        speaking = self._num_speaking()
        if speaking == 0:
            return False
        if speaking <= SHRINK_AT * self.count:
            self._keep(speaking)
        self._advance()
        return True

    def results(self, rows: int) -> tuple[Tensor, Tensor, list[Ending]]:
        """Return what `generate_codes` returns."""
        self._put_away()
        num_frames = self._num_frames_B[:rows].tolist()
        ended = self._ended_B[:rows].bool().tolist()
        count = max(num_frames)
        endings = [Ending(*item) for item in zip(num_frames, ended, strict=True)]
        return self._codes_BNK[:rows, :count], self._hidden_BND[:rows, : count + 1], endings

    def record(self) -> None:
        """Record a frame for batches of this size, half of it and so on, and check each recording.

        Raises:
            RuntimeError: Recording failed, or a recording does other than what was recorded.
        """
        self._load_noise()
        capture.warm_up(self._frame, self._frame_1.device)
        sizes, size = [], self.room.rows
        while size:
            sizes.append(size)
            size = math.ceil(size / 2) if size > 1 else 0
        replays = {}
        for size in sizes:
            self._use(size)
            replays[size] = capture.record(self._frame, self._frame_1.device)
        for size, replay in replays.items():
            seen = []
            for work in (self._frame, replay):
                self._load_noise()
                self._use(size)
                work()
                work()
                tensors = (self._codes_BNK, self._last_SD, self._made_S, self._frame_1)
                seen.append([item.clone() for item in tensors])
            if not all(torch.equal(a, b) for a, b in zip(*seen, strict=True)):
                raise RuntimeError(f"the recording for {size} rows answers differently")
        self._replays = replays

    def _frame(self) -> None:
        self._choose()
        self._advance()

    def _load_noise(self) -> None:
        """Begin a batch that means nothing."""
        S, D = self._last_SD.shape
        generator = torch.Generator().manual_seed(0)
        prompts = torch.randn(S, 3, D, generator=generator).to(self._last_SD)
        mask = torch.ones(S, 3, dtype=torch.long, device=prompts.device)
        mask[0, 0] = 0
        texts = prompts[:, :1]
        self.load(prompts, mask, texts, texts[:1], range(S), [self.room.tokens] * S)

    def _use(self, slots: int) -> None:
        self.count = slots
        self._stack.resize(slots)

    def _num_speaking(self) -> int:
        return int(self._speaks_S[: self.count].sum())

    def _choose(self) -> None:
        """Choose codebook 0 of the next frame, and see which rows have ended."""
        A = self.count
        row_A, speaks_A = self._row_S[:A], self._speaks_S[:A]
        self._draws_SK[:A] = self._uniform_BNK[row_A, self._frame_1]
        logits_AV = self._head(self._last_SD[:A]).float()
        if self._too_early:
            never = self._is_eos_V & (self._frame_1 < self._too_early)
            logits_AV = logits_AV.masked_fill(never, -torch.inf)
        had_AV = None if self._had_SV is None else self._had_SV[:A]
        index_A = self._sampler(had_AV, logits_AV, self._draws_SK[:A, 0])
        if had_AV is not None:
            had_AV.scatter_(1, index_A[:, None], True)
        is_eos_A = self._is_eos_V[index_A]
        self._c0_S[:A] = self._code_V[index_A]
        self._end_S[:A].logical_or_(speaks_A & is_eos_A)
        speaks_A.logical_and_(~is_eos_A & (self._frame_1 + 1 < self._limit_S[:A]))
        self._made_S[:A].add_(speaks_A)

    def _advance(self) -> None:
        """Choose the other codebooks of the frame and read it."""
        A = self.count
        row_A, frame_1 = self._row_S[:A], self._frame_1
        codes_AK, embedded_AD = self._predictor(
            self._last_SD[:A], self._c0_S[:A], self._draws_SK[:A, 1:]
        )
        codes_AK = torch.where(self._speaks_S[:A, None], codes_AK, self._blank_K)
        self._codes_BNK[row_A, frame_1] = codes_AK
        text_AD = self._text_BND[row_A, frame_1.clamp(max=self.room.texts)]
        last_AD = self._stack.step(embedded_AD + text_AD)
        self._last_SD[:A] = last_AD
        frame_1 += 1
        self._hidden_BND[row_A, frame_1] = last_AD

    def _keep(self, slots: int) -> None:
        """Go on with so many slots; those that speak come first."""
        self._put_away()
        A = self.count
        kept = torch.argsort(self._speaks_S[:A], descending=True, stable=True)[:slots]
        for item in (
            self._row_S, self._limit_S, self._c0_S, self._made_S, self._end_S, self._speaks_S,
            self._last_SD, self._draws_SK, self._had_SV,
        ):  # fmt: skip
            if item is not None:
                item[:slots] = item[kept]
        self._stack.keep(kept)
        self.count = slots

    def _put_away(self) -> None:
        """Write what slots know of their rows to the rows."""
        row_A = self._row_S[: self.count]
        self._num_frames_B[row_A] = self._made_S[: self.count]
        self._ended_B[row_A] = self._end_S[: self.count].long()


class _Predictor:
    """The code predictor: codebooks 1 … K-1 of a frame, from the talker's state and codebook 0.

    Args:
        joined: Weights of the model.
        rows: Of the largest batch.
        sampler: Chooses the codes.
    """

    def __init__(self, joined: _Joined, rows: int, sampler: Sampler) -> None:
        self._joined, self._sampler = joined, sampler
        self._stack = Stack(joined.predictor, rows, len(joined.tables))

    def __call__(
        self, hidden_BD: Tensor, c0_B: Tensor, uniform_BK: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the codes of one frame, `[B, K]`, and the sum of their embeddings, `[B, D]`."""
        tables, read = self._joined.tables, self._joined.read
        codes, embedded = [c0_B], [F.embedding(c0_B, tables[0])]
        first = [self._joined.project(hidden_BD), F.embedding(c0_B, read[0])]
        last_BD = self._stack.start(torch.stack(first, dim=1))
        for index, head in enumerate(self._joined.heads):
            if index:
                last_BD = self._stack.step(F.embedding(codes[-1], read[index]))
            codes.append(self._sampler(None, head(last_BD).float(), uniform_BK[:, index]))
            embedded.append(F.embedding(codes[-1], tables[index + 1]))
        return torch.stack(codes, dim=1), torch.stack(embedded, dim=1).sum(dim=1)


class _Joined:
    """What is made of a talker and its code predictor once for many batches.

    Attributes:
        talker: Its layers.
        predictor: Those of the code predictor.
        tables: Of each codebook, as they are added up for the talker.
        read: Of each codebook, as the code predictor reads them.
        project: What the code predictor reads of the talker's state.
        heads: Of codebooks 1 … K-1.
        recorded: Frames of the last batch, for the next one like it.
        record: Whether a frame can be recorded.
    """

    def __init__(self, talker: Any) -> None:
        predictor = talker.code_predictor
        self.talker, self.predictor = Weights.of(talker.model), Weights.of(predictor.model)
        tables = [talker.get_input_embeddings(), *predictor.get_input_embeddings()]
        self.tables = [table.weight.detach() for table in tables]
        self.project = predictor.small_to_mtp_projection
        # The last table's codes are read by nobody.
        self.read = [self.project(table) for table in self.tables[:-1]]
        self.heads = [Product(head.weight) for head in predictor.get_output_embeddings()]
        self.recorded: _Frames | None = None
        self.record = capture.possible(talker.device)
        self._head: tuple[list[int], Product, Tensor] | None = None

    def head(self, talker: Any, suppress: Sequence[int]) -> tuple[Product, Tensor]:
        """Return the head of codebook 0 for the codes that are not suppressed, and these `[V]`."""
        if self._head is None or self._head[0] != list(suppress):
            weight = talker.codec_head.weight.detach()
            never = set(suppress)
            allowed = [code for code in range(len(weight)) if code not in never]
            code_V = torch.tensor(allowed, device=weight.device)
            self._head = list(suppress), Product(weight[code_V]), code_V
        return self._head[1:]


_cache: tuple[Any, list[Any], _Joined] | None = None


def joined_weights(talker: Any) -> _Joined:
    """Join the weights of a model, or return those of the last call if they are the same still."""
    global _cache
    parameters = [*talker.model.layers.parameters(), *talker.code_predictor.parameters()]
    parameters += [talker.model.norm.weight, talker.codec_head.weight]
    parameters.append(talker.get_input_embeddings().weight)
    state = [(item.data_ptr(), item._version, item.dtype) for item in parameters]
    if _cache is not None and _cache[0]() is talker and _cache[1] == state:
        return _cache[2]
    forget()
    found = _Joined(talker)
    _cache = weakref.ref(talker, lambda _: forget()), state, found
    return found


def forget() -> None:
    """Free the joined weights, which are kept from one batch to the next."""
    global _cache
    if _cache is not None:
        _cache[2].recorded = None  # it knows the joined weights: a circle
    _cache = None


def _frames(talker: Any, room: _Room, options: dict[str, Any]) -> _Frames:
    """Return frames with room for a batch: on a GPU recorded ones, if they do the last one's."""
    joined = joined_weights(talker)
    if not joined.record:
        return _Frames(talker, joined, room, options)
    ready = joined.recorded
    if ready is None or not ready.room.holds(room) or ready.options != options:
        joined.recorded = ready = None  # its memory is free before the next takes some
        ready = _Frames(talker, joined, room.rounded(), options, counts_on_device=True)
        try:
            ready.record()
        except RuntimeError as error:
            joined.record = False
            capture.warn(error)
            return _Frames(talker, joined, room, options)
        joined.recorded = ready
    return ready
