"""Decoder layers of a stock model over a cache of fixed size: few operations, few allocations.

Shape legend: B rows, T new positions, L cached positions, N = B T, D width, G key heads, S size of
a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

TYPICAL_ROWS = 16  # of a batch, for which a CPU's weights are laid out
LAID_OUT_FROM = 2**16  # values of a weight; below, laying it out gains less than the call costs


class Product:
    """A product with a weight that stays; on a CPU a large weight is laid out for it once.

    Otherwise a product of few rows spends much of its time laying out the weight each time.

    Args:
        weight: `[outputs, inputs]`.
        bias: `[outputs]` or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.num_inputs = weight.shape[1]
        self._weight, self._bias = weight.detach(), bias
        on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
        self._laid_out = (
            on_cpu and weight.numel() > LAID_OUT_FROM and torch.backends.mkldnn.is_available()
        )
        if self._laid_out:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight, TYPICAL_ROWS)
            self._multiply = torch.ops.mkldnn._linear_pointwise.default
        else:
            self._turned = self._weight.t()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Multiply `[N, inputs]` to `[N, outputs]`."""
        if self._laid_out:
            return self._multiply(inputs, self._weight, self._bias, "none", [], "")
        if self._bias is not None:
            return torch.addmm(self._bias, inputs, self._turned)
        return torch.mm(inputs, self._turned)

    def added(self, inputs: Tensor, to: Tensor) -> Tensor:
        """Multiply and add the product to `[N, outputs]`."""
        if self._laid_out or self._bias is not None:
            return to + self(inputs)
        return torch.addmm(to, inputs, self._turned)


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
        self._qkv = Product(
            _after_norm(layer.input_layernorm, projections),
            None if biases[0] is None else torch.cat(biases),
        )
        self._floor = _floor(layer.input_layernorm)
        both = (mlp.gate_proj, mlp.up_proj)
        self._gate_up = Product(_after_norm(layer.post_attention_layernorm, both))
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
        self._out = Product(attention.o_proj.weight, attention.o_proj.bias)
        self._down, self._act = Product(mlp.down_proj.weight, mlp.down_proj.bias), mlp.act_fn
        self.products = (self._qkv, self._out, self._gate_up, self._down)

    def __call__(
        self,
        states_ND: Tensor,
        cache: _Cache,
        place: tuple[int, int] | Tensor,
        turn: tuple[Tensor, Tensor],
        mask: Tensor | None,
        last_only: bool,
    ) -> Tensor:
        """Read positions.

        Args:
            states_ND: Of N = B T positions, rows one after another.
            cache: Of this layer; receives the new keys and values.
            place: First new position and the one after the last; or, on the device, the one new
                position `[1]`.
            turn: Cosines and signed sines of the positions, `[N or 1, 1, S]`.
            mask: Added to attention scores, `[B or 1, 1, T, L]`.
            last_only: Nobody needs the states but each row's last.

        Returns:
            `[N, D]`, or `[B, D]` of the last positions.
        """
        rows = cache.rows
        count, group = len(states_ND) // rows, self.query_heads // self.key_heads
        inner = self._qkv(_unit(states_ND, self._floor)).view(rows * count, -1, self.size)
        both = inner[:, : self.query_heads + self.key_heads]
        qk = _unit(both, self._qk_floor) * self._qk_weight
        torch.addcmul(qk * turn[0], qk.roll(self.size // 2, -1), turn[1], out=both)
        keys, values = cache.write(inner[:, self.query_heads :], place)
        queries = inner[:, : self.query_heads]
        if count > 1:
            queries = queries.view(rows, count, self.key_heads, group, self.size)
            if last_only:
                queries, states_ND = queries[:, -1:], states_ND.view(rows, count, -1)[:, -1]
                mask, count = None if mask is None else mask[:, :, -1:], 1
            elif mask is not None and group > 1:
                mask = mask.repeat_interleave(group, dim=2)
            queries = queries.transpose(1, 2)
        # The queries of a key's group are read as further positions of one head.
        queries = queries.reshape(rows, self.key_heads, count * group, self.size)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=1.0)
        if count > 1:
            mixed = mixed.view(rows, self.key_heads, count, group, self.size).transpose(1, 2)
        states_ND = self._out.added(mixed.reshape(len(states_ND), -1), states_ND)
        gate, up = self._gate_up(_unit(states_ND, self._mlp_floor)).chunk(2, -1)
        return self._down.added(self._act(gate) * up, states_ND)


class _Cache:
    """Keys and values of one layer.

    Args:
        like: A tensor of its device and type.
        rows: Of the batch.
        length: Positions a row can have.
        key_heads: G.
        size: S.
    """

    def __init__(self, like: Tensor, rows: int, length: int, key_heads: int, size: int) -> None:
        self._whole = like.new_empty(rows, length, 2 * key_heads, size)
        self._key_heads, self._views = key_heads, dict[tuple[int, int], tuple[Tensor, ...]]()
        self.rows = rows

    def write(self, fresh: Tensor, place: tuple[int, int] | Tensor) -> tuple[Tensor, Tensor]:
        """Take keys and values `[N, 2 G, S]` and return all up to them, `[B, G, L, S]` each.

        With a place on the device all that the cache can hold is returned; a mask is to hide what
        is not yet written.
        """
        if isinstance(place, Tensor):
            cache = self._whole[: self.rows]
            cache.index_copy_(1, place, fresh[:, None])
            keys, values = cache.transpose(1, 2).split(self._key_heads, dim=1)
            return keys, values
        views = self._views.get(place)
        if views is None:
            start, end = place
            target = self._whole[: self.rows, start:end]
            read = self._whole[: self.rows, :end].transpose(1, 2)
            views = self._views[place] = (target, *read.split(self._key_heads, dim=1))
        target, keys, values = views
        target.copy_(fresh.view(target.shape))
        return keys, values

    def clear(self) -> None:
        """Hold numbers everywhere: what is masked takes part in the sums."""
        self._whole.zero_()

    def keep(self, rows: Tensor, length: int) -> None:
        """Go on with these rows, of which `length` positions are written."""
        self._whole[: len(rows), :length] = self._whole[rows, :length]
        self.resize(len(rows))

    def resize(self, rows: int) -> None:
        """Hold the first rows only, or again more."""
        if rows != self.rows:
            self.rows = rows
            self._views.clear()


@dataclass(frozen=True)
class Weights:
    """What is made of a stock talker or code predictor model, once for many batches."""

    layers: list[_Layer]
    norm: Tensor
    norm_floor: Tensor
    frequencies_E: Tensor
    turn_scale: float

    @classmethod
    def of(cls, model: Any) -> Weights:
        """Join them."""
        norm = model.norm.weight
        return cls(
            [_Layer(layer) for layer in model.layers],
            (norm.float() * len(norm) ** 0.5).to(norm.dtype),
            _floor(model.norm),
            model.rotary_emb.inv_freq.float(),
            model.rotary_emb.attention_scaling,
        )

    def turns(self, length: int) -> Tensor:
        """Return cosines and signed sines of the first positions, `[length, 2, S]`.

        The three position grids of the talker's rotary embedding are equal for speech, so one
        serves.
        """
        places = torch.arange(length, device=self.norm.device)
        angles = places[:, None].float() * self.frequencies_E[None, :]
        cos, sin = angles.cos() * self.turn_scale, angles.sin() * self.turn_scale
        table = torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)], dim=1)
        return table.to(self.norm.dtype)


class Stack:
    """Decoder layers over caches of fixed size.

    Args:
        weights: Of the layers.
        rows: Of the batch.
        length: Positions a row can have.
        counts_on_device: `step` takes its position from the device, reads the whole cache under a
            mask, and so is the same operations on the same memory at every position.
    """

    def __init__(
        self, weights: Weights, rows: int, length: int, counts_on_device: bool = False
    ) -> None:
        self._weights, self._turns = weights, weights.turns(length)
        self._caches = [
            _Cache(weights.norm, rows, length, layer.key_heads, layer.size)
            for layer in weights.layers
        ]
        self._length = 0  # positions in the cache
        self._mask_BL: Tensor | None = None  # added to attention scores; None without padding
        self._padding_B: Tensor | None = None
        self._moving: _Moving | None = None
        if counts_on_device:
            self._moving = _Moving.of(rows, length, weights.norm.device)

    @property
    def rows(self) -> int:
        """Rows that are read."""
        return self._caches[0].rows

    def start(self, inputs_BTD: Tensor) -> Tensor:
        """Forget everything, read unpadded positions and return the last one's state `[B, D]`."""
        self._length, self._mask_BL, self._padding_B = 0, None, None
        self.resize(len(inputs_BTD))
        return self._read(inputs_BTD)

    def prompt(self, inputs_BTD: Tensor, attention_mask: Tensor) -> Tensor:
        """Read prompts that are padded on the left and return their last states `[B, D]`."""
        padding_B = (attention_mask == 0).sum(dim=1)
        padded = bool((padding_B > 0).any())
        self.resize(len(inputs_BTD))
        self._length, self._mask_BL, self._padding_B = 0, None, None
        if padded:
            self._padding_B = padding_B
            hidden = torch.arange(len(self._turns), device=padding_B.device) < padding_B[:, None]
            self._mask_BL = torch.zeros(hidden.shape, dtype=inputs_BTD.dtype, device=hidden.device)
            self._mask_BL.masked_fill_(hidden, torch.finfo(inputs_BTD.dtype).min)
        if self._moving is not None:
            for cache in self._caches:
                cache.clear()
            self._moving.load(inputs_BTD.shape[1], padding_B)
        return self._read(inputs_BTD)

    def step(self, inputs_BD: Tensor) -> Tensor:
        """Read one more position of every row and return its state `[B, D]`."""
        if self._moving is None:
            return self._read(inputs_BD[:, None])
        moving, rows = self._moving, len(inputs_BD)
        padding_B = moving.padding_B[:rows]
        turns = self._turns[moving.place_1 - padding_B]
        mask = moving.mask(rows, inputs_BD.dtype)
        last_BD = self._through(inputs_BD, moving.place_1, turns, mask)
        moving.place_1.add_(1)
        return last_BD

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        length = self._length if self._moving is None else len(self._turns)
        for cache in self._caches:
            cache.keep(rows, length)
        if self._moving is not None:
            self._moving.padding_B[: len(rows)] = self._moving.padding_B[rows]
        if self._padding_B is not None and self._mask_BL is not None:
            self._padding_B, self._mask_BL = self._padding_B[rows], self._mask_BL[rows]

    def resize(self, rows: int) -> None:
        """Read the first rows only, or again more."""
        for cache in self._caches:
            cache.resize(rows)

    def _read(self, inputs_BTD: Tensor) -> Tensor:
        rows, count, width = inputs_BTD.shape
        start, end = self._length, self._length + count
        turns = self._turns[start:end]
        if self._padding_B is not None:
            places = torch.arange(start, end, device=inputs_BTD.device) - self._padding_B[:, None]
            turns = self._turns[places.clamp_(min=0).view(-1)]
        elif count > 1:
            turns = turns.expand(rows, -1, -1, -1).flatten(0, 1)
        mask = self._mask(start, end, inputs_BTD)
        self._length = end
        return self._through(inputs_BTD.reshape(rows * count, width), (start, end), turns, mask)

    def _through(
        self,
        states_ND: Tensor,
        place: tuple[int, int] | Tensor,
        turns: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        turn = turns[:, :1], turns[:, 1:]
        last = len(self._caches) - 1
        for index, layer in enumerate(self._weights.layers):
            states_ND = layer(states_ND, self._caches[index], place, turn, mask, index == last)
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


@dataclass(frozen=True)
class _Moving:
    """Where a stack is, kept on the device.

    Attributes:
        place_1: The next position.
        padding_B: Positions on a row's left that hold nothing.
        places_L: All positions.
    """

    place_1: Tensor
    padding_B: Tensor
    places_L: Tensor

    @classmethod
    def of(cls, rows: int, length: int, device: torch.device) -> _Moving:
        one, padding = torch.zeros(2, max(rows, 1), dtype=torch.long, device=device)
        return cls(one[:1].clone(), padding.clone(), torch.arange(length, device=device))

    def load(self, length: int, padding_B: Tensor) -> None:
        """Stand behind prompts."""
        self.place_1.fill_(length)
        self.padding_B.zero_()
        self.padding_B[: len(padding_B)] = padding_B

    def mask(self, rows: int, dtype: torch.dtype) -> Tensor:
        """Hide what is padding or not yet written, `[B, 1, 1, L]`."""
        shown_BL = self.places_L >= self.padding_B[:rows, None]
        shown_BL = shown_BL & (self.places_L <= self.place_1)
        mask_BL = torch.where(shown_BL, 0.0, torch.finfo(dtype).min).to(dtype)
        return mask_BL[:, None, None]


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
    if values.dtype == torch.float32:
        length = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
        return values / torch.hypot(length, floor)
    length = torch.linalg.vector_norm(values, dim=-1, keepdim=True, dtype=torch.float32)
    return (values / torch.hypot(length, floor)).to(values.dtype)
