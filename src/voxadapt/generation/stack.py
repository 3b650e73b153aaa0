"""Decoder layers of a stock model over a cache of fixed size, with few operations.

Shape legend: B rows, T new positions, L cached positions, N = B T, D width, G key heads, S size of
a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxadapt.model.stock import Decoder, DecoderLayer, RmsNorm

Place = tuple[int, int] | Tensor  # new positions [start, end), or the only one, on the device
TYPICAL_ROWS = 16  # of a batch, for which a CPU's weights are packed
PACKED_FROM = 2**16  # values of a weight; below, packing gains less than the call costs


class PackedLinear:
    """A linear layer for few rows whose weight is packed once.

    On a CPU, a product of few rows otherwise spends much of its time packing the weight. The weight
    is `[outputs, inputs]`, the bias `[outputs]` or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.num_inputs = weight.shape[1]
        self._weight, self._bias = weight.detach(), bias
        on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
        self._packed = (
            on_cpu and weight.numel() > PACKED_FROM and torch.backends.mkldnn.is_available()
        )
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight, TYPICAL_ROWS)
            self._multiply = torch.ops.mkldnn._linear_pointwise.default
        else:
            self._transposed = self._weight.t()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Multiply `[N, inputs]` to `[N, outputs]`."""
        if self._packed:
            product: Tensor = self._multiply(inputs, self._weight, self._bias, "none", [], "")
            return product
        if self._bias is not None:
            return torch.addmm(self._bias, inputs, self._transposed)
        return torch.mm(inputs, self._transposed)

    def added(self, inputs: Tensor, to: Tensor) -> Tensor:
        """Multiply and add the product to `[N, outputs]`."""
        if self._packed or self._bias is not None:
            return to + self(inputs)
        return torch.addmm(to, inputs, self._transposed)


class _Layer:
    """The weights of one stock decoder layer, fused into few operations.

    Small models spend their time between the matrix products. Query, key and value are one
    product, as are gate and up. Norms divide by `hypot(length, sqrt(D eps))`, which is the stock
    root mean square times `sqrt(D)`; that factor and the norm's weight are part of the product
    that follows.
    """

    def __init__(self, layer: DecoderLayer) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.size = attention.head_dim
        self.key_heads = attention.k_proj.out_features // self.size
        self.query_heads = attention.q_proj.out_features // self.size
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        biases = [item.bias for item in projections]
        self._qkv = PackedLinear(
            _after_norm(layer.input_layernorm, projections),
            None if biases[0] is None else torch.cat(list[Tensor](biases)),
        )
        self._floor = _floor(layer.input_layernorm)
        both = (mlp.gate_proj, mlp.up_proj)
        self._gate_up = PackedLinear(_after_norm(layer.post_attention_layernorm, both))
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
        self._out = PackedLinear(attention.o_proj.weight, attention.o_proj.bias)
        self._down, self._act = PackedLinear(mlp.down_proj.weight, mlp.down_proj.bias), mlp.act_fn
        self.linears = (self._qkv, self._out, self._gate_up, self._down)

    def __call__(
        self,
        states_ND: Tensor,
        cache: _Cache,
        place: Place,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | None,
        last_only: bool,
    ) -> Tensor:
        """Read positions.

        Args:
            states_ND: Of N = B T positions, rows one after another.
            cache: Of this layer; receives the new keys and values.
            place: First new position and the one after the last; or, on the device, the one new
                position `[1]`.
            rotary: Cosines and signed sines of the positions, `[N or 1, 1, S]`.
            mask: Added to attention scores, `[B or 1, 1, T, L]`.
            last_only: Only the states of each row's last position are needed.

        Returns:
            `[N, D]`, or `[B, D]` of the last positions.
        """
        num_heads = self.query_heads + self.key_heads
        fused = self._qkv(_rms_norm(states_ND, self._floor))
        fused = fused.view(len(states_ND), -1, self.size)
        self._apply_rotary(fused[:, :num_heads], rotary)
        keys, values = cache.write(fused[:, self.query_heads :], place)
        queries = fused[:, : self.query_heads]
        if last_only and len(states_ND) > cache.rows:
            states_ND = states_ND.view(cache.rows, -1, states_ND.shape[1])[:, -1]
        mixed = self._attention(queries, keys, values, mask, last_only)
        states_ND = self._out.added(mixed.reshape(len(states_ND), -1), states_ND)
        gate, up = self._gate_up(_rms_norm(states_ND, self._mlp_floor)).chunk(2, -1)
        return self._down.added(self._act(gate) * up, states_ND)

    def _apply_rotary(self, heads: Tensor, rotary: tuple[Tensor, Tensor]) -> None:
        """Norm and rotate query and key heads `[N, heads, S]` in place."""
        qk = _rms_norm(heads, self._qk_floor) * self._qk_weight
        torch.addcmul(qk * rotary[0], qk.roll(self.size // 2, -1), rotary[1], out=heads)

    def _attention(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, last_only: bool
    ) -> Tensor:
        """Attend to the cache.

        Args:
            queries: `[N, query heads, S]`.
            keys: `[B, G, L, S]`.
            values: As keys.
            mask: Added to scores, `[B or 1, 1, T, L]`.
            last_only: Attend from each row's last position only.
        """
        rows, group = len(keys), self.query_heads // self.key_heads
        count = len(queries) // rows
        if count > 1:
            queries = queries.view(rows, count, self.key_heads, group, self.size)
            if last_only:
                queries, count = queries[:, -1:], 1
                mask = None if mask is None else mask[:, :, -1:]
            elif mask is not None and group > 1:
                mask = mask.repeat_interleave(group, dim=2)
            queries = queries.transpose(1, 2)
        # The queries of a key's group are read as further positions of one head.
        queries = queries.reshape(rows, self.key_heads, count * group, self.size)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=1.0)
        if count > 1:
            mixed = mixed.view(rows, self.key_heads, count, group, self.size).transpose(1, 2)
        return mixed


class _Cache:
    """Keys and values of one layer."""

    def __init__(self, like: Tensor, rows: int, length: int, key_heads: int, size: int) -> None:
        self._whole = like.new_empty(rows, length, 2 * key_heads, size)
        self._key_heads, self._views = key_heads, dict[tuple[int, int], tuple[Tensor, ...]]()
        self.rows = rows

    def write(self, fresh: Tensor, place: Place) -> tuple[Tensor, Tensor]:
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
    """Fused weights of a stock talker or code predictor model, made once for many batches."""

    layers: list[_Layer]
    norm: Tensor
    norm_floor: Tensor
    frequencies_E: Tensor
    rotary_scale: float

    @classmethod
    def of(cls, model: Decoder) -> Weights:
        """Fuse the layers of a model."""
        norm = model.norm.weight
        return cls(
            [_Layer(cast(DecoderLayer, layer)) for layer in model.layers],
            (norm.float() * len(norm) ** 0.5).to(norm.dtype),
            _floor(model.norm),
            model.rotary_emb.inv_freq.float(),
            model.rotary_emb.attention_scaling,
        )

    def rotary(self, length: int) -> Tensor:
        """Return cosines and signed sines of the first positions, `[length, 2, S]`.

        The three position grids of the talker's rotary embedding are equal for speech, so one
        serves.
        """
        places = torch.arange(length, device=self.norm.device)
        angles = places[:, None].float() * self.frequencies_E[None, :]
        cos, sin = angles.cos() * self.rotary_scale, angles.sin() * self.rotary_scale
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
        self._weights, self._rotary = weights, weights.rotary(length)
        self._caches = [
            _Cache(weights.norm, rows, length, layer.key_heads, layer.size)
            for layer in weights.layers
        ]
        self._length = 0  # positions in the cache
        self._mask_BL: Tensor | None = None  # added to attention scores; None without padding
        self._padding_B: Tensor | None = None
        self._on_device: _DevicePosition | None = None
        if counts_on_device:
            self._on_device = _DevicePosition.of(rows, length, weights.norm.device)

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
            hidden = torch.arange(len(self._rotary), device=padding_B.device) < padding_B[:, None]
            self._mask_BL = torch.zeros(hidden.shape, dtype=inputs_BTD.dtype, device=hidden.device)
            self._mask_BL.masked_fill_(hidden, torch.finfo(inputs_BTD.dtype).min)
        if self._on_device is not None:
            for cache in self._caches:
                cache.clear()
            self._on_device.load(inputs_BTD.shape[1], padding_B)
        return self._read(inputs_BTD)

    def step(self, inputs_BD: Tensor) -> Tensor:
        """Read one more position of every row and return its state `[B, D]`."""
        if self._on_device is None:
            return self._read(inputs_BD[:, None])
        position, rows = self._on_device, len(inputs_BD)
        padding_B = position.padding_B[:rows]
        rotary = self._rotary[position.place_1 - padding_B]
        mask = position.mask(rows, inputs_BD.dtype)
        last_BD = self._through(inputs_BD, position.place_1, rotary, mask)
        position.place_1.add_(1)
        return last_BD

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        length = self._length if self._on_device is None else len(self._rotary)
        for cache in self._caches:
            cache.keep(rows, length)
        if self._on_device is not None:
            self._on_device.padding_B[: len(rows)] = self._on_device.padding_B[rows]
        if self._padding_B is not None and self._mask_BL is not None:
            self._padding_B, self._mask_BL = self._padding_B[rows], self._mask_BL[rows]

    def resize(self, rows: int) -> None:
        """Read the first rows only, or again more."""
        for cache in self._caches:
            cache.resize(rows)

    def _read(self, inputs_BTD: Tensor) -> Tensor:
        rows, count, width = inputs_BTD.shape
        start, end = self._length, self._length + count
        rotary = self._rotary[start:end]
        if self._padding_B is not None:
            places = torch.arange(start, end, device=inputs_BTD.device) - self._padding_B[:, None]
            rotary = self._rotary[places.clamp_(min=0).view(-1)]
        elif count > 1:
            rotary = rotary.expand(rows, -1, -1, -1).flatten(0, 1)
        mask = self._mask(start, end, inputs_BTD)
        self._length = end
        states_ND = inputs_BTD.reshape(rows * count, width)
        return self._through(states_ND, (start, end), rotary, mask)

    def _through(
        self, states_ND: Tensor, place: Place, rotary: Tensor, mask: Tensor | None
    ) -> Tensor:
        parts = rotary[:, :1], rotary[:, 1:]
        last = len(self._caches) - 1
        for index, layer in enumerate(self._weights.layers):
            states_ND = layer(states_ND, self._caches[index], place, parts, mask, index == last)
        return _rms_norm(states_ND, self._weights.norm_floor) * self._weights.norm

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
class _DevicePosition:
    """The next position of a stack, kept on the device."""

    place_1: Tensor  # the next position
    padding_B: Tensor  # positions on a row's left that hold nothing
    places_L: Tensor  # all positions

    @classmethod
    def of(cls, rows: int, length: int, device: torch.device) -> _DevicePosition:
        place = torch.zeros(1, dtype=torch.long, device=device)
        padding = torch.zeros(rows, dtype=torch.long, device=device)
        return cls(place, padding, torch.arange(length, device=device))

    def load(self, length: int, padding_B: Tensor) -> None:
        """Set the position after prompts of this length."""
        self.place_1.fill_(length)
        self.padding_B.zero_()
        self.padding_B[: len(padding_B)] = padding_B

    def mask(self, rows: int, dtype: torch.dtype) -> Tensor:
        """Hide what is padding or not yet written, `[B, 1, 1, L]`."""
        shown_BL = self.places_L >= self.padding_B[:rows, None]
        shown_BL = shown_BL & (self.places_L <= self.place_1)
        mask_BL = torch.where(shown_BL, 0.0, torch.finfo(dtype).min).to(dtype)
        return mask_BL[:, None, None]


def _after_norm(norm: RmsNorm, projections: Sequence[nn.Linear]) -> Tensor:
    """Join projections of a norm's output; the norm's weight becomes part of them."""
    joined = torch.cat([item.weight for item in projections])
    factors: Tensor = norm.weight.float() * len(norm.weight) ** 0.5
    return (joined.float() * factors).to(joined.dtype)


def _floor(norm: RmsNorm) -> Tensor:
    """Return what keeps a stock norm from dividing by nothing, as `_rms_norm` takes it."""
    value = (len(norm.weight) * norm.variance_epsilon) ** 0.5
    return torch.tensor(value, dtype=torch.float32, device=norm.weight.device)


def _rms_norm(values: Tensor, floor: Tensor) -> Tensor:
    """Scale the last dimension to length 1: an RMS norm without weight and `sqrt(D)`.

    Values are `[..., D]`; `floor` is `sqrt(D eps)`, from `_floor`.
    """
    if values.dtype == torch.float32:
        length = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
        return values / torch.hypot(length, floor)
    length = torch.linalg.vector_norm(values, dim=-1, keepdim=True, dtype=torch.float32)
    return (values / torch.hypot(length, floor)).to(values.dtype)
