"""Speech codes of a batch of texts: the token loop of `generate`, without what makes it slow.

The stock call builds the prompt, then runs Hugging Face's `generate` once for the talker and, in
every frame, once more for the code predictor. Here the prompt stays the stock one; the loop is
written out over the stock weights with caches that are allocated once. Greedy codes are those of
the stock loop; sampled codes follow the same distribution.

Three things differ on purpose. Each row draws from a random stream of its own, so that what is
said does not depend on the company in its batch, and two checkpoints meet the same numbers. Each
row has its own limit of frames. And a row that has ended leaves the batch.

Shape legend: B rows, T new positions, L cached positions, D width, H heads, K codebooks, V codes.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

VERSION = 3  # of what a seed says: enters every key under which generated speech is kept
BELOW_ONE = 1.0 - 2.0**-23  # largest random number
TYPICAL_ROWS = 16  # of a batch, for which a CPU's weights are laid out
SPARE_S = 4.0  # added to a text's limit, for short texts
SHRINK_AT = 0.75  # rows that have ended are taken out when this share, or fewer, still speak


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
    device, eos = inputs_embeds.device, int(options["eos_token_id"])
    rows, prompt_length = attention_mask.shape
    num_codes, longest = talker.config.num_code_groups, max(limits)
    assert longest >= 2, "a limit below two tokens leaves no frame"
    weights = joined_weights(talker)
    stack = _Stack(weights.talker, rows, prompt_length + longest)
    predictor = _Predictor(talker, weights.predictor, rows, _Sampler.sub_talker(options))
    sampler = _Sampler.talker(options)
    uniform_BNK = torch.stack([_uniform(seed, longest, num_codes) for seed in seeds]).to(device)
    limit_B = torch.tensor(limits, device=device)
    too_early = int(options.get("min_new_tokens") or 0)

    codes_BNK = torch.zeros(rows, longest, num_codes, dtype=torch.long, device=device)
    codes_BNK[:, :, 0] = eos
    hidden_BND = inputs_embeds.new_zeros(rows, longest + 1, inputs_embeds.shape[-1])
    num_frames_B = torch.zeros_like(limit_B)
    ended_B = torch.zeros(rows, dtype=torch.bool, device=device)

    # Rows of the batch that are still computed, and which of them still speak.
    active = torch.arange(rows, device=device)
    speaks = torch.ones_like(ended_B)
    last_BD = stack.prompt(inputs_embeds, attention_mask)
    hidden_BND[:, 0] = last_BD
    for frame in range(longest):
        logits_BV = talker.codec_head(last_BD).float()
        if frame < too_early:
            logits_BV[:, eos] = -torch.inf
        c0_B = sampler(codes_BNK[active, :frame, 0], logits_BV, uniform_BNK[active, frame, 0])
        ended_B[active] |= speaks & (c0_B == eos)
        speaks = speaks & (c0_B != eos) & (frame + 1 < limit_B[active])
        num_frames_B[active] += speaks
        num_speaking = int(speaks.sum())
        if num_speaking == 0:
            break
        if num_speaking <= SHRINK_AT * len(active):
            kept = torch.nonzero(speaks).squeeze(-1)
            active, speaks, c0_B, last_BD = active[kept], speaks[kept], c0_B[kept], last_BD[kept]
            stack.keep(kept)
        codes_BK, embedded_BD = predictor(last_BD, c0_B, uniform_BNK[active, frame, 1:])
        codes_BNK[active[speaks], frame] = codes_BK[speaks]
        if frame < trailing_text_hidden.shape[1]:
            embedded_BD = embedded_BD + trailing_text_hidden[active, frame]
        else:
            embedded_BD = embedded_BD + tts_pad_embed[:, 0]
        last_BD = stack.step(embedded_BD)
        hidden_BND[active, frame + 1] = last_BD
    count = int(num_frames_B.max())
    endings = [Ending(*item) for item in zip(num_frames_B.tolist(), ended_B.tolist(), strict=True)]
    return codes_BNK[:, :count], hidden_BND[:, : count + 1], endings


def _uniform(seed: int, num_tokens: int, num_codes: int) -> Tensor:
    """Draw the random numbers of one row, `[N, K]`, the same on every device.

    The first frames' numbers do not depend on how many are drawn. They stay so far below 1 that
    a number times a float32 total is always less than the total.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_tokens, num_codes, generator=generator).clamp_(max=BELOW_ONE)


class _Sampler:
    """From logits to codes, with the processors of Hugging Face's `generate` in its order.

    Codes keep their order under the draw, so that two checkpoints whose probabilities differ a
    little mostly choose the same code.

    Args:
        sample: Draw; otherwise take the likeliest.
        suppress: Codes that are never chosen.
        repetition_penalty: Divides the logits of codes that the row has had already.
        temperature: Divides the logits.
        top_k: Likeliest codes that are drawn from; 0 or None: all.
        top_p: Probability mass that is drawn from.
    """

    def __init__(
        self,
        sample: bool,
        temperature: float | None,
        top_k: int | None,
        top_p: float | None,
        repetition_penalty: float | None = None,
        suppress: Sequence[int] = (),
    ) -> None:
        self._sample, self._temperature, self._top_k = sample, temperature, top_k
        self._penalty = None
        if repetition_penalty not in (None, 1.0):
            self._penalty = RepetitionPenaltyLogitsProcessor(repetition_penalty)
        self._suppress = list(suppress)
        self._suppressed_V: Tensor | None = None  # added to the logits
        self._top_p = TopPLogitsWarper(top_p) if top_p is not None and top_p < 1.0 else None

    @classmethod
    def talker(cls, options: dict[str, Any]) -> _Sampler:
        """Return codebook 0's."""
        return cls(
            options["do_sample"],
            options["temperature"],
            options["top_k"],
            options["top_p"],
            options["repetition_penalty"],
            options["suppress_tokens"],
        )

    @classmethod
    def sub_talker(cls, options: dict[str, Any]) -> _Sampler:
        """Return that of the other codebooks."""
        names = ("dosample", "temperature", "top_k", "top_p")
        return cls(*(options[f"subtalker_{name}"] for name in names))

    def __call__(self, history_BN: Tensor | None, logits_BV: Tensor, uniform_B: Tensor) -> Tensor:
        """Choose a code a row: the one whose stretch of the cumulated probability holds the draw.

        Args:
            history_BN: Codes that the row has had.
            logits_BV: float32.
            uniform_B: Draws in [0, BELOW_ONE].
        """
        scores_BV = logits_BV
        if self._penalty is not None:
            scores_BV = self._penalty(history_BN, scores_BV)
        if self._suppress:
            if self._suppressed_V is None:
                self._suppressed_V = scores_BV.new_zeros(scores_BV.shape[-1])
                self._suppressed_V[self._suppress] = -torch.inf
            scores_BV = scores_BV + self._suppressed_V
        if not self._sample:
            return scores_BV.argmax(dim=-1)
        if self._temperature not in (None, 1.0):
            scores_BV = scores_BV / self._temperature
        if self._top_k:
            kept = scores_BV.topk(min(self._top_k, scores_BV.shape[-1])).values[:, -1:]
            scores_BV = scores_BV.masked_fill(scores_BV < kept, -torch.inf)
        if self._top_p is not None:
            scores_BV = self._top_p(history_BN, scores_BV)
        cumulated_BV = scores_BV.softmax(dim=-1).cumsum(dim=-1)
        wanted_B1 = uniform_B[:, None] * cumulated_BV[:, -1:]
        return torch.searchsorted(cumulated_BV, wanted_B1, right=True).squeeze(-1)


class _Predictor:
    """The code predictor: codebooks 1 … K-1 of a frame, from the talker's state and codebook 0.

    Args:
        talker: Stock talker, which holds the predictor and the table of codebook 0.
        weights: Of the predictor's layers.
        rows: Of the batch.
        sampler: Chooses the codes.
    """

    def __init__(self, talker: Any, weights: _Weights, rows: int, sampler: _Sampler) -> None:
        predictor = talker.code_predictor
        self._heads = [head.weight for head in predictor.get_output_embeddings()]
        tables = [talker.get_input_embeddings(), *predictor.get_input_embeddings()]
        self._tables = [table.weight for table in tables]
        self._project = predictor.small_to_mtp_projection
        self._stack = _Stack(weights, rows, len(self._tables))
        self._sampler = sampler

    def __call__(
        self, hidden_BD: Tensor, c0_B: Tensor, uniform_BK: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the codes of one frame, `[B, K]`, and the sum of their embeddings, `[B, D]`."""
        codes, embedded = [c0_B], [F.embedding(c0_B, self._tables[0])]
        first_B2D = torch.stack([hidden_BD, embedded[0]], dim=1)
        last_BD = self._stack.start(self._project(first_B2D))
        for index, head in enumerate(self._heads):
            if index:
                last_BD = self._stack.step(self._project(embedded[-1]))
            codes.append(self._sampler(None, F.linear(last_BD, head).float(), uniform_BK[:, index]))
            embedded.append(F.embedding(codes[-1], self._tables[index + 1]))
        return torch.stack(codes, dim=1), torch.stack(embedded, dim=1).sum(dim=1)


class _Layer:
    """The weights of one stock decoder layer, joined for few operations.

    Small models spend their time between the products. Query, key and value are one product, as
    are gate and up. Norms divide by `hypot(length, sqrt(D eps))`, which is the stock root mean
    square times `sqrt(D)`; that factor and the norm's weight are part of the product that follows.
    """

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.size = attention.head_dim
        self.key_heads = attention.k_proj.out_features // self.size
        self.query_heads = attention.q_proj.out_features // self.size
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        biases = [item.bias for item in projections]
        self._qkv = _Product(
            _after_norm(layer.input_layernorm, projections),
            None if biases[0] is None else torch.cat(biases),
        )
        self._floor = _floor(layer.input_layernorm)
        both = (mlp.gate_proj, mlp.up_proj)
        self._gate_up = _Product(_after_norm(layer.post_attention_layernorm, both), None)
        self._mlp_floor = _floor(layer.post_attention_layernorm)
        norms = (attention.q_norm, attention.k_norm)
        scales = (attention.scaling * self.size**0.5, self.size**0.5)
        heads = (self.query_heads, self.key_heads)
        self._qk_weight = torch.cat(
            [
                (norm.weight.float() * scale).to(norm.weight.dtype).expand(count, -1)
                for norm, scale, count in zip(norms, scales, heads, strict=True)
            ]
        )
        self._qk_floor = _floor(attention.q_norm)
        self._out = _Product(attention.o_proj.weight, attention.o_proj.bias)
        self._down, self._act = _Product(mlp.down_proj.weight, mlp.down_proj.bias), mlp.act_fn
        self.products = (self._qkv, self._out, self._gate_up, self._down)

    def __call__(
        self,
        states_ND: Tensor,
        cache: tuple[Tensor, Tensor],
        turn: tuple[Tensor, Tensor],
        start: int,
        mask: Tensor | None,
        last_only: bool,
    ) -> Tensor:
        """Read positions.

        Args:
            states_ND: Of N = B T positions, rows one after another.
            cache: Keys and values, `[B, key heads, length, size]` each; receives the new ones.
            turn: Cosines and signed sines of the positions, `[N or 1, 1, size]`.
            start: First of the T new positions.
            mask: Added to attention scores, `[B or 1, 1, T, L]`.
            last_only: Nobody needs the states but each row's last.

        Returns:
            `[N, D]`, or `[B, D]` of the last positions.
        """
        keys, values = cache
        rows, group = keys.shape[0], self.query_heads // self.key_heads
        count = len(states_ND) // rows
        end = start + count
        inner = self._qkv(_unit(states_ND, self._floor))
        inner = inner.view(rows * count, -1, self.size)
        both = self.query_heads + self.key_heads
        qk = _unit(inner[:, :both], self._qk_floor) * self._qk_weight
        qk = torch.addcmul(qk * turn[0], qk.roll(self.size // 2, -1), turn[1])
        fresh = (rows, count, self.key_heads, self.size)
        keys[:, :, start:end] = qk[:, self.query_heads :].view(fresh).transpose(1, 2)
        values[:, :, start:end] = inner[:, both:].view(fresh).transpose(1, 2)
        # The queries of a key's group are read as further positions of one head.
        queries = qk[:, : self.query_heads].view(rows, count, self.key_heads, group, self.size)
        if last_only and count > 1:
            queries, states_ND = queries[:, -1:], states_ND.view(rows, count, -1)[:, -1]
            mask, count = None if mask is None else mask[:, :, -1:], 1
        queries = queries.transpose(1, 2).reshape(rows, self.key_heads, count * group, self.size)
        if mask is not None and group > 1 and count > 1:
            mask = mask.repeat_interleave(group, dim=2)
        mixed = F.scaled_dot_product_attention(
            queries, keys[:, :, :end], values[:, :, :end], attn_mask=mask, scale=1.0
        )
        if count > 1:
            mixed = mixed.view(rows, self.key_heads, count, group, self.size).transpose(1, 2)
        states_ND = states_ND + self._out(mixed.reshape(len(states_ND), -1))
        gate, up = self._gate_up(_unit(states_ND, self._mlp_floor)).chunk(2, -1)
        return states_ND + self._down(self._act(gate) * up)


class _Product:
    """A product with a weight that stays; on a CPU the weight is laid out for it once.

    Otherwise a product of few rows spends much of its time laying out the weight each time.

    Args:
        weight: `[outputs, inputs]`.
        bias: `[outputs]` or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.num_inputs = weight.shape[1]
        self._weight, self._bias = weight, bias
        on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
        self._laid_out = on_cpu and torch.backends.mkldnn.is_available()
        if self._laid_out:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), TYPICAL_ROWS)

    def __call__(self, inputs: Tensor) -> Tensor:
        if self._laid_out:
            multiply = torch.ops.mkldnn._linear_pointwise.default
            return multiply(inputs, self._weight, self._bias, "none", [], "")
        return F.linear(inputs, self._weight, self._bias)


@dataclass(frozen=True)
class _Weights:
    """What is made of a stock talker or code predictor model, once for many batches."""

    layers: list[_Layer]
    norm: Tensor
    norm_floor: Tensor
    frequencies_E: Tensor
    turn_scale: float

    @classmethod
    def of(cls, model: Any) -> _Weights:
        norm = model.norm.weight
        return cls(
            [_Layer(layer) for layer in model.layers],
            (norm.float() * len(norm) ** 0.5).to(norm.dtype),
            _floor(model.norm),
            model.rotary_emb.inv_freq.float(),
            model.rotary_emb.attention_scaling,
        )

    def turns(self, length: int) -> Tensor:
        """Return cosines and signed sines of the first positions, `[length, 2, size]`.

        The three position grids of the talker's rotary embedding are equal for speech, so one
        serves.
        """
        places = torch.arange(length, device=self.norm.device)
        angles = places[:, None].float() * self.frequencies_E[None, :]
        cos, sin = angles.cos() * self.turn_scale, angles.sin() * self.turn_scale
        table = torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)], dim=1)
        return table.to(self.norm.dtype)


@dataclass(frozen=True)
class _Joined:
    """The joined weights of a talker and of its code predictor."""

    talker: _Weights
    predictor: _Weights


_cache: tuple[Any, list[Any], _Joined] | None = None


def joined_weights(talker: Any) -> _Joined:
    """Join the weights of a model, or return those of the last call if they are the same still."""
    global _cache
    parameters = [*talker.model.layers.parameters(), *talker.code_predictor.model.parameters()]
    parameters.append(talker.model.norm.weight)
    state = [(item.data_ptr(), item._version, item.dtype) for item in parameters]
    if _cache is not None and _cache[0]() is talker and _cache[1] == state:
        return _cache[2]
    forget()
    found = _Joined(_Weights.of(talker.model), _Weights.of(talker.code_predictor.model))
    _cache = weakref.ref(talker, lambda _: forget()), state, found
    return found


def forget() -> None:
    """Free the joined weights, which are kept from one batch to the next."""
    global _cache
    _cache = None


class _Stack:
    """Decoder layers over a cache of fixed size.

    Args:
        weights: Of the layers.
        rows: Of the batch.
        length: Positions a row can have.
    """

    def __init__(self, weights: _Weights, rows: int, length: int) -> None:
        self._weights, self._turns = weights, weights.turns(length)
        self._caches = []
        for layer in weights.layers:
            shape = (rows, layer.key_heads, length, layer.size)
            self._caches.append((weights.norm.new_empty(shape), weights.norm.new_empty(shape)))
        self._length = 0  # positions in the cache
        self._mask_BL: Tensor | None = None  # added to attention scores; None without padding
        self._padding_B: Tensor | None = None

    def start(self, inputs_BTD: Tensor) -> Tensor:
        """Forget everything, read unpadded positions and return the last one's state `[B, D]`."""
        self._length, self._mask_BL, self._padding_B = 0, None, None
        return self._read(inputs_BTD)

    def prompt(self, inputs_BTD: Tensor, attention_mask: Tensor) -> Tensor:
        """Read prompts that are padded on the left and return their last states `[B, D]`."""
        padding_B = (attention_mask == 0).sum(dim=1)
        if int(padding_B.max()) == 0:
            return self.start(inputs_BTD)
        self._length, self._padding_B = 0, padding_B
        hidden = torch.arange(len(self._turns), device=padding_B.device) < padding_B[:, None]
        self._mask_BL = torch.zeros(hidden.shape, dtype=inputs_BTD.dtype, device=hidden.device)
        self._mask_BL.masked_fill_(hidden, torch.finfo(inputs_BTD.dtype).min)
        return self._read(inputs_BTD)

    def step(self, inputs_BD: Tensor) -> Tensor:
        """Read one more position of every row and return its state `[B, D]`."""
        return self._read(inputs_BD[:, None])

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        caches = []
        for pair in self._caches:
            for cache in pair:
                cache[: len(rows), :, : self._length] = cache[rows, :, : self._length]
            caches.append((pair[0][: len(rows)], pair[1][: len(rows)]))
        self._caches = caches
        if self._padding_B is not None and self._mask_BL is not None:
            self._padding_B, self._mask_BL = self._padding_B[rows], self._mask_BL[rows]

    def _read(self, inputs_BTD: Tensor) -> Tensor:
        rows, count, width = inputs_BTD.shape
        start, end = self._length, self._length + count
        turns = self._turns[start:end]
        if self._padding_B is not None:
            places = torch.arange(start, end, device=inputs_BTD.device) - self._padding_B[:, None]
            turns = self._turns[places.clamp_(min=0).view(-1)]
        elif count > 1:
            turns = turns.expand(rows, -1, -1, -1).flatten(0, 1)
        cos, sin = turns.split(1, dim=1)
        mask = self._mask(start, end, inputs_BTD)
        states_ND = inputs_BTD.reshape(rows * count, width)
        last = len(self._caches) - 1
        for index, layer in enumerate(self._weights.layers):
            cache = self._caches[index]
            if len(cache[0]) > rows:
                cache = cache[0][:rows], cache[1][:rows]
            states_ND = layer(states_ND, cache, (cos, sin), start, mask, index == last)
        self._length = end
        return _unit(states_ND, self._weights.norm_floor) * self._weights.norm

    def _mask(self, start: int, end: int, inputs_BTD: Tensor) -> Tensor | None:
        """Return what is added to attention scores, `[B or 1, 1, T, L]`; None for nothing."""
        padding = None if self._mask_BL is None else self._mask_BL[:, None, None, :end]
        if end - start == 1:
            return padding
        lowest = torch.finfo(inputs_BTD.dtype).min
        later = torch.full((end - start, end), lowest, device=inputs_BTD.device).triu(start + 1)
        later = later.to(inputs_BTD.dtype)[None, None]
        return later if padding is None else torch.minimum(later, padding)


def _after_norm(norm: Any, projections: Sequence[Any]) -> Tensor:
    """Join projections that read a norm's answer; the norm's weight becomes part of them."""
    joined = torch.cat([item.weight for item in projections])
    factors = norm.weight.float() * len(norm.weight) ** 0.5
    return (joined.float() * factors).to(joined.dtype)


def _floor(norm: Any) -> Tensor:
    """Return what keeps a stock norm from dividing by nothing, as `_unit` takes it."""
    value = (len(norm.weight) * norm.variance_epsilon) ** 0.5
    return torch.tensor(value, dtype=torch.float32, device=norm.weight.device)


def _unit(values: Tensor, floor: Tensor) -> Tensor:
    """Scale the last dimension to length 1, as far as it is longer than the floor."""
    length = torch.linalg.vector_norm(values, dim=-1, keepdim=True, dtype=torch.float32)
    return (values / torch.hypot(length, floor)).to(values.dtype)
