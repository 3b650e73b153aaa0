"""Speech codes of a batch of texts: the token loop of `generate`, without what makes it slow.

The stock call builds the prompt, then runs Hugging Face's `generate` once for the talker and, in
every frame, once more for the code predictor. Here the prompt stays the stock one; the loop is
written out over the stock weights with caches that are allocated once. Greedy codes are those of
the stock loop; sampled codes follow the same distribution.

Three things differ on purpose. Each row draws from a random stream of its own, so that its speech
does not depend on the other rows of the batch, and two checkpoints get the same numbers. Each row
has its own limit of frames. And a row that has ended leaves the batch.

A row that has missed its end is cut there (`voxadapt.generation.end_watch`).

On a GPU a frame is captured once as a CUDA graph and replayed (`voxadapt.generation.cuda_graph`).

Shape legend: B rows, S slots, A slots in use, T positions of a prompt, N frames, D width, K
codebooks, V codes that codebook 0 may have.
"""

from __future__ import annotations

import hashlib
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from types import SimpleNamespace, TracebackType
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxadapt.generation import cuda_graph as capture
from voxadapt.generation.end_watch import EndWatch
from voxadapt.generation.sampling import GenerateOptions, Sampler, uniform
from voxadapt.generation.stack import PackedLinear, Stack, Weights
from voxadapt.model.stock import Talker, Tts, TtsModel

VERSION = 6  # raised when a seed gives other speech: part of every key of generated speech
SPARE_S = 4.0  # added to a text's limit, for short texts
SHRINK_AT = 0.75  # rows that have ended are taken out when this share, or fewer, are active
ROUND = 256  # positions that a recording has room for are a multiple of this
LOOK_EVERY = 4  # frames that are replayed before the host asks which rows are active


def stream_seed(*parts: int | str) -> int:
    """Hash what a row is to the seed of its random stream, below 2^31."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def frame_rate_hz(tts: Tts) -> float:
    """Read the codec's frames per second from the model."""
    codec = tts.model.speech_tokenizer
    return codec.get_output_sample_rate() / codec.get_decode_upsample_rate()


def text_tokens(tts: Tts, text: str) -> int:
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
    """How a row of the last batch ended."""

    num_frames: int  # frames of codes
    ended: bool  # the model chose the end; False where it was cut off
    rescued: bool = False  # it was cut off at its likeliest end; False where that was the limit


class Decoding:
    """Let the stock calls of a model use the loop of this module, within a `with` block.

        with Decoding(tts.model, seeds=[1, 2], max_new_tokens=[90, 120]) as decoding:
            wavs, _ = tts.generate_custom_voice(text=[…, …], …)
        decoding.endings

    `seeds` are those of each row's random stream; a row stops at its `max_new_tokens`, one more
    than the frames it can give.

    Attributes:
        endings: One a row, once the call has returned.
    """

    def __init__(
        self, model: TtsModel, seeds: Sequence[int], max_new_tokens: Sequence[int]
    ) -> None:
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
        **options: Unpack[GenerateOptions],
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
    talker: Talker,
    inputs_embeds: Tensor,
    attention_mask: Tensor,
    trailing_text_hidden: Tensor,
    tts_pad_embed: Tensor,
    *,
    seeds: Sequence[int],
    limits: Sequence[int],
    options: GenerateOptions,
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
    room = _Capacity(rows, longest, prompt_length + longest, trailing_text_hidden.shape[1])
    frames = _frames(talker, room, options)
    frames.load(
        inputs_embeds, attention_mask, trailing_text_hidden, tts_pad_embed, seeds, list(limits)
    )
    for _ in range(longest):
        if not frames.next():
            break
    return frames.results(rows)


@dataclass(frozen=True)
class _Capacity:
    """Sizes that a batch needs."""

    rows: int  # B
    tokens: int  # of codebook 0
    positions: int  # of the prompt and of all tokens
    texts: int  # embeddings that are added to frames

    def holds(self, other: _Capacity) -> bool:
        """Whether another batch fits in."""
        return all(a >= b for a, b in zip(astuple(self), astuple(other), strict=True))

    def rounded(self) -> _Capacity:
        """Leave room for the next batches, which are longer."""
        lengths = (self.tokens, self.positions, self.texts)
        return _Capacity(self.rows, *(math.ceil(value / ROUND) * ROUND for value in lengths))


class _Frames:
    """The frames of a batch, generated one after another.

    All state lies in tensors that stay where they are, and `_choose` and `_advance` neither read a
    value back nor let a shape depend on one: on a GPU they can be captured and replayed. Rows are
    those of the batch. A slot is a place at which a row is computed; `count` are in use.
    """

    def __init__(
        self,
        talker: Talker,
        weights: _FusedWeights,
        room: _Capacity,
        options: GenerateOptions,
        counts_on_device: bool = False,
    ) -> None:
        self.room, self.options = room, options
        self._sampler, sub_sampler = Sampler.talker(options), Sampler.sub_talker(options)
        self._stack = Stack(weights.talker, room.rows, room.positions, counts_on_device)
        self._predictor = _Predictor(weights, room.rows, sub_sampler)
        self._too_early = int(options.get("min_new_tokens") or 0)
        eos = int(options["eos_token_id"])
        self._head, self._code_V = weights.head(talker, options["suppress_tokens"])
        device = self._code_V.device
        self._is_eos_V = self._code_V == eos
        self._eos_1 = self._is_eos_V.long().argmax()[None]
        S, D = room.rows, talker.config.hidden_size
        K, V = talker.config.num_code_groups, len(self._code_V)
        like = weights.talker.norm

        def integers(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.long, device=device)

        # Of a row.
        self._uniform_BNK = torch.zeros(S, room.tokens, K, device=device)
        self._text_BND = like.new_zeros(S, room.texts + 1, D)
        self._codes_BNK = integers(S, room.tokens, K)
        self._ended_K = integers(K)
        self._ended_K[0] = eos
        self._hidden_BND = like.new_zeros(S, room.tokens + 1, D)
        self._num_frames_B, self._ended_B = integers(S), integers(S).bool()
        self._rescued_B = integers(S).bool()
        # Of a slot.
        self._row_S, self._limit_S, self._c0_S = integers(S), integers(S), integers(S)
        self._frames_S, self._end_S, self._active_S = (
            integers(S),
            integers(S).bool(),
            integers(S).bool(),
        )
        self._watch = EndWatch(S, device)
        self._last_SD = like.new_zeros(S, D)
        self._uniform_SK = torch.zeros(S, K, device=device)
        self._used_SV: Tensor | None = None
        if self._sampler.penalty is not None:
            self._used_SV = integers(S, V).bool()
        # Of all.
        self._frame_1 = integers(1)
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
        self._codes_BNK[:] = self._ended_K
        self._num_frames_B.zero_()
        self._ended_B.zero_()
        self._rescued_B.zero_()
        self._row_S.copy_(torch.arange(S, device=device))
        self._limit_S.zero_()
        self._limit_S[:B] = torch.tensor(limits, device=device)
        self._frames_S.zero_()
        self._end_S.zero_()
        self._active_S.zero_()
        self._active_S[:B] = True
        self._watch.reset()
        if self._used_SV is not None:
            self._used_SV.zero_()
        self._frame_1.zero_()
        self._replayed = 0
        self._last_SD.zero_()
        self._last_SD[:B] = self._stack.prompt(inputs_embeds, attention_mask)
        self._hidden_BND[:, 0] = self._last_SD
        self.count = min((size for size in self._replays if size >= B), default=B)
        self._stack.resize(self.count)

    def next(self) -> bool:
        """Generate a frame; return False when no row is active any more."""
        if self._replays:
            self._replays[self.count]()
            self._replayed += 1
            if self._replayed % LOOK_EVERY:
                return True
            active = self._num_active()
            smaller = min(size for size in self._replays if size >= max(active, 1))
            if smaller < self.count:
                self._keep(smaller)
            return active > 0
        self._choose()
        active = self._num_active()
        if active == 0:
            return False
        if active <= SHRINK_AT * self.count:
            self._keep(active)
        self._advance()
        return True

    def results(self, rows: int) -> tuple[Tensor, Tensor, list[Ending]]:
        """Return what `generate_codes` returns."""
        self._write_rows()
        num_frames = self._num_frames_B[:rows].tolist()
        flags = self._ended_B[:rows].tolist(), self._rescued_B[:rows].tolist()
        count = max(num_frames)
        endings = [Ending(*item) for item in zip(num_frames, *flags, strict=True)]
        for row, ending in enumerate(endings):
            if ending.rescued:
                self._codes_BNK[row, ending.num_frames :] = self._ended_K
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
                tensors = (self._codes_BNK, self._last_SD, self._frames_S, self._frame_1,
                           self._watch.speaking_S)  # fmt: skip
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

    def _num_active(self) -> int:
        return int(self._active_S[: self.count].sum())

    def _choose(self) -> None:
        """Choose codebook 0 of the next frame, and see which rows have ended."""
        A = self.count
        row_A, active_A = self._row_S[:A], self._active_S[:A]
        self._uniform_SK[:A] = self._uniform_BNK[row_A, self._frame_1]
        logits_AV = self._head(self._last_SD[:A]).float()
        if self._too_early:
            never = self._is_eos_V & (self._frame_1 < self._too_early)
            logits_AV = logits_AV.masked_fill(never, -torch.inf)
        used_AV = None if self._used_SV is None else self._used_SV[:A]
        scores_AV = self._sampler.scores(used_AV, logits_AV)
        index_A = self._sampler.choose(scores_AV, self._uniform_SK[:A, 0])
        if used_AV is not None:
            used_AV.scatter_(1, index_A[:, None], True)
        is_eos_A = self._is_eos_V[index_A]
        self._c0_S[:A] = self._code_V[index_A]
        self._end_S[:A].logical_or_(active_A & is_eos_A)
        end_A = scores_AV.softmax(dim=-1).index_select(1, self._eos_1).squeeze(1)
        may_go_on_A = self._watch.observe(end_A, active_A, self._frame_1)
        in_time_A = self._frame_1 + 1 < self._limit_S[:A]
        active_A.logical_and_(~is_eos_A & may_go_on_A & in_time_A)
        self._frames_S[:A].add_(active_A)

    def _advance(self) -> None:
        """Choose the other codebooks of the frame and read it."""
        A = self.count
        row_A, frame_1 = self._row_S[:A], self._frame_1
        codes_AK, embedded_AD = self._predictor(
            self._last_SD[:A], self._c0_S[:A], self._uniform_SK[:A, 1:]
        )
        codes_AK = torch.where(self._active_S[:A, None], codes_AK, self._ended_K)
        self._codes_BNK[row_A, frame_1] = codes_AK
        text_AD = self._text_BND[row_A, frame_1.clamp(max=self.room.texts)]
        last_AD = self._stack.step(embedded_AD + text_AD)
        self._last_SD[:A] = last_AD
        frame_1 += 1
        self._hidden_BND[row_A, frame_1] = last_AD

    def _keep(self, slots: int) -> None:
        """Go on with so many slots, those of active rows first."""
        self._write_rows()
        A = self.count
        kept = torch.argsort(self._active_S[:A], descending=True, stable=True)[:slots]
        for item in (
            self._row_S, self._limit_S, self._c0_S, self._frames_S, self._end_S, self._active_S,
            self._last_SD, self._uniform_SK, self._used_SV,
        ):  # fmt: skip
            if item is not None:
                item[:slots] = item[kept]
        self._watch.keep(kept)
        self._stack.keep(kept)
        self.count = slots

    def _write_rows(self) -> None:
        """Write what slots know of their rows to the rows."""
        A = self.count
        row_A, end_A = self._row_S[:A], self._end_S[:A]
        rescued_A = self._watch.missed(A) & ~end_A
        self._num_frames_B[row_A] = torch.where(
            rescued_A, self._watch.likeliest_S[:A], self._frames_S[:A]
        )
        self._ended_B[row_A] = end_A
        self._rescued_B[row_A] = rescued_A


class _Predictor:
    """The code predictor: codebooks 1 … K-1 of a frame, from the talker's state and codebook 0."""

    def __init__(self, weights: _FusedWeights, rows: int, sampler: Sampler) -> None:
        self._weights, self._sampler = weights, sampler
        self._stack = Stack(weights.predictor, rows, len(weights.tables))

    def __call__(
        self, hidden_BD: Tensor, c0_B: Tensor, uniform_BK: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the codes of one frame, `[B, K]`, and the sum of their embeddings, `[B, D]`."""
        weights = self._weights
        codes, embedded = [c0_B], [F.embedding(c0_B, weights.tables[0])]

        def read() -> Tensor:
            """Return the last code as the predictor reads it."""
            if weights.read is None:
                return embedded[-1]
            return F.embedding(codes[-1], weights.read[len(codes) - 1])

        last_BD = self._stack.start(torch.stack([weights.project(hidden_BD), read()], dim=1))
        for index, head in enumerate(weights.heads):
            if index:
                last_BD = self._stack.step(read())
            codes.append(self._sampler(None, head(last_BD).float(), uniform_BK[:, index]))
            embedded.append(F.embedding(codes[-1], weights.tables[index + 1]))
        return torch.stack(codes, dim=1), torch.stack(embedded, dim=1).sum(dim=1)


class _FusedWeights:
    """Weights of a talker and its code predictor, fused once for many batches.

    Attributes:
        talker: Its layers.
        predictor: Those of the code predictor.
        tables: Of each codebook, as they are added up for the talker.
        read: The same as the code predictor reads them; None where it has no projection.
        project: From the talker's width to the code predictor's.
        heads: Of codebooks 1 … K-1.
        recorded: Frames of the last batch, for the next one like it.
        record: Whether a frame can be recorded.
    """

    def __init__(self, talker: Talker) -> None:
        predictor = talker.code_predictor
        self.talker, self.predictor = Weights.of(talker.model), Weights.of(predictor.model)
        tables = [talker.get_input_embeddings(), *predictor.get_input_embeddings()]
        self.tables = [table.weight.detach() for table in tables]
        self.project = predictor.small_to_mtp_projection
        self.read: list[Tensor] | None = None
        if not isinstance(self.project, nn.Identity):
            # The code predictor does not read the last codebook.
            self.read = [self.project(table) for table in self.tables[:-1]]
        self.heads = [PackedLinear(head.weight) for head in predictor.get_output_embeddings()]
        self.recorded: _Frames | None = None
        self.record = capture.possible(talker.device)
        self._head: tuple[list[int], PackedLinear, Tensor] | None = None

    def head(self, talker: Talker, suppress: Sequence[int]) -> tuple[PackedLinear, Tensor]:
        """Return the head of codebook 0 for the codes that are not suppressed, and these `[V]`."""
        if self._head is None or self._head[0] != list(suppress):
            weight = talker.codec_head.weight.detach()
            never = set(suppress)
            allowed = [code for code in range(len(weight)) if code not in never]
            code_V = torch.tensor(allowed, device=weight.device)
            self._head = list(suppress), PackedLinear(weight[code_V]), code_V
        return self._head[1:]


_cache: tuple[weakref.ref[Talker], list[tuple[int, int, torch.dtype]], _FusedWeights] | None = None


def fused_weights(talker: Talker) -> _FusedWeights:
    """Fuse the weights of a model, or return those of the last call if nothing has changed."""
    global _cache
    parameters: list[Tensor] = [
        *talker.model.layers.parameters(),
        *talker.code_predictor.parameters(),
    ]
    parameters += [talker.model.norm.weight, talker.codec_head.weight]
    parameters.append(talker.get_input_embeddings().weight)
    state = [(item.data_ptr(), item._version, item.dtype) for item in parameters]
    if _cache is not None and _cache[0]() is talker and _cache[1] == state:
        return _cache[2]
    forget()
    found = _FusedWeights(talker)
    _cache = weakref.ref(talker, lambda _: forget()), state, found
    return found


def forget() -> None:
    """Free the fused weights, which are kept from one batch to the next."""
    global _cache
    if _cache is not None:
        _cache[2].recorded = None  # it refers to the fused weights: a cycle
    _cache = None


def _frames(talker: Talker, room: _Capacity, options: GenerateOptions) -> _Frames:
    """Return frames with room for a batch: on a GPU recorded ones, if they do the last one's."""
    weights = fused_weights(talker)
    if not weights.record:
        return _Frames(talker, weights, room, options)
    ready = weights.recorded
    if ready is None or not ready.room.holds(room) or ready.options != options:
        weights.recorded = ready = None  # its memory is free before the next takes some
        ready = _Frames(talker, weights, room.rounded(), options, counts_on_device=True)
        try:
            ready.record()
        except RuntimeError as error:
            weights.record = False
            capture.warn(error)
            return _Frames(talker, weights, room, options)
        weights.recorded = ready
    return ready
