"""The codec's decoder on a CPU: the stock weights, with little between their products.

The stock layers hold channels first: each convolution lays its input out anew, for each length of a
clip by code that is compiled for it, and the widest tensors leave the cache between two layers.
Here positions come first, a convolution is one product a tap, and the last layers read a clip in
blocks of a few frames, of which each keeps what the next block looks back to. Waves equal the stock
ones but for rounding.

Shape legend: L positions, C channels, N frames, K codebooks.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALL = 256  # channels before the first decoder block; of such a codec the second is small as well
BLOCK_FRAMES = 4  # of which the widest tensors stay in a core's cache
TILE = 1536  # values that are multiplied with their channels' factors in one go
GROUP = 16  # samples that the last layer makes at once


def speed_up(decoder: nn.Module) -> None:
    """Let a stock decoder on a CPU decode by `CodecDecoder`."""
    weight = next(decoder.parameters())
    if weight.device.type == "cpu" and weight.dtype == torch.float32:
        decoder.forward = CodecDecoder(decoder)


class CodecDecoder:
    """Turns codes `[B, K, N]` into waves `[B, 1, samples]`, as a stock decoder's `forward` does.

    Its layers are made when they are first needed: who trains never decodes.
    """

    def __init__(self, decoder: Any) -> None:
        self._stock = decoder

    @cached_property
    def _layers(self) -> tuple[list[_Layer], list[_Layer]]:
        """Return the layers that read a clip as a whole, and those that read it in blocks."""
        upsample, blocks = self._stock.upsample, self._stock.decoder
        layers = list(_layers(self._stock))
        num_whole = 2 if self._stock.config.decoder_dim <= SMALL else 1
        border = 2 * len(upsample) + 1 + sum(len(b.block) - 1 for b in blocks[1:-2][:num_whole])
        return layers[:border], layers[border:]

    @torch.inference_mode()
    def __call__(self, codes_BKN: Tensor) -> Tensor:
        """Decode clip by clip: a wave does not depend on its company."""
        stock = self._stock
        hidden_BNC = stock.pre_conv(stock.quantizer.decode(codes_BKN)).transpose(1, 2)
        mask = _window_mask(hidden_BNC.shape[1], stock.config.sliding_window)
        # Given by layer type it is taken as it is; putting it together takes longer than reading.
        states = stock.pre_transformer(
            inputs_embeds=hidden_BNC, attention_mask={"sliding_attention": mask}
        )
        waves = torch.stack([self._decode(clip_NC) for clip_NC in states.last_hidden_state])
        return waves[:, None].clamp_(min=-1, max=1)

    def _decode(self, hidden_NC: Tensor) -> Tensor:
        num_frames = len(hidden_NC)
        values = F.pad(hidden_NC, (0, 0, 0, -num_frames % BLOCK_FRAMES))
        num_blocks = len(values) // BLOCK_FRAMES
        whole, in_blocks = self._layers
        for layer in (*whole, *in_blocks):
            layer.start()
        for layer in whole:
            values = layer(values)
        waves = []
        for block in values.chunk(num_blocks):
            for layer in in_blocks:
                block = layer(block)
            waves.append(block.flatten())
        wave = torch.cat(waves)
        return wave[: num_frames * len(wave) // (num_blocks * BLOCK_FRAMES)]


def _window_mask(num_frames: int, window: int) -> Tensor | None:
    """Return which frames each one sees, `[1, 1, N, N]`; None where that is all before it."""
    if num_frames <= window:
        return None
    every = torch.ones(num_frames, num_frames, dtype=torch.bool)
    return (every.tril() & every.triu(1 - window))[None, None]


def _layers(decoder: Any) -> Iterator[_Layer]:
    """Yield the layers behind the transformer."""
    length = BLOCK_FRAMES
    for upsample, block in decoder.upsample:
        yield _Layer(_Conv(*_spread(upsample.conv)))
        length *= upsample.conv.stride[0]
        yield _ConvNext(block)
    first, *blocks, snake, last = decoder.decoder
    yield _Layer(_Conv(first.conv.weight, first.conv.bias))
    missing = torch.zeros(first.conv.out_channels, dtype=torch.float64)
    for stock in blocks:
        before, upsample, *units = stock.block
        yield _Layer(_Conv(*_spread(upsample.conv)), _Snake(before, length, missing))
        length *= upsample.conv.stride[0]
        missing = torch.zeros(upsample.conv.out_channels, dtype=torch.float64)
        for unit in units:
            residual = _Residual(unit, length, missing)
            missing = residual.missing
            yield residual
    weight, bias, behind = last.conv.weight, last.conv.bias, _Snake(snake, length, missing)
    group = GROUP if length % GROUP == 0 else 1
    yield _Layer(_Conv(_grouped(weight, group), bias.repeat(group)), behind, group)


class _Conv:
    """A causal convolution as one product a tap.

    A weight is `[outputs, C, taps]`, or `[C, 1, taps]` where channels stay apart.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dilation: int = 1) -> None:
        self._weight, self._bias = weight.detach().double(), bias.detach().double()
        self.channels, self._step = weight.shape[1], dilation
        self.reach = (weight.shape[2] - 1) * dilation  # positions that it looks back
        self.complete(torch.zeros(self.channels, dtype=torch.float64))

    def complete(self, missing: Tensor) -> None:
        """Make up for what is missing of the inputs, `[C]`."""
        self.before = -missing.float().expand(self.reach, -1)
        self._made_up = (self._bias + self._weight.sum(2) @ missing).float()
        self._taps = list(self._weight.float().permute(2, 1, 0).contiguous())

    def __call__(self, held: Tensor) -> Tensor:
        """Read `[reach + L, C]` and return `[L, outputs]`."""
        length = len(held) - self.reach
        made = torch.addmm(self._made_up, held[:length], self._taps[0])
        for place, tap in enumerate(self._taps[1:], 1):
            start = place * self._step
            made.addmm_(held[start : start + length], tap)
        return made


class _Snake:
    """`x + sin(a x)^2 / b`, as `x - cos(2 a x) / 2b`: what that lacks is made up for by the next.

    What is read lacks `missing` `[C]`, what is written `self.missing`. The length of what is read
    is a multiple of `length`.
    """

    def __init__(self, snake: Any, length: int, missing: Tensor) -> None:
        frequency, half = _factors(snake)
        self.missing = missing + half
        repeats = _repeats(length, len(half))
        self._width = repeats * len(half)
        self._frequency = frequency.float().repeat(repeats)
        self._phase = (frequency * missing).float().repeat(repeats)
        self._half = -half.float().repeat(repeats)

    def __call__(self, values: Tensor, out: Tensor) -> None:
        """Read positions and write them to `out`."""
        values, out = values.view(-1, self._width), out.view(-1, self._width)
        wave = torch.addcmul(self._phase, values, self._frequency)
        torch.addcmul(values, _cosines(wave, wave), self._half, out=out)


class _Layer:
    """A convolution, with a Snake before it or without.

    With a `group` it reads so many positions as one, and makes as many.
    """

    def __init__(self, conv: _Conv, snake: _Snake | None = None, group: int = 1) -> None:
        self._conv, self._snake = conv, snake
        if snake is not None:
            conv.complete(snake.missing.repeat(group))

    def start(self) -> None:
        """Begin a clip."""
        self._past = self._conv.before

    def held(self, values: Tensor) -> Tensor:
        """Return what the convolution reads of the next positions, and what came before them."""
        conv, length = self._conv, values.numel() // self._conv.channels
        held = values.new_empty(conv.reach + length, conv.channels)
        held[: conv.reach] = self._past
        if self._snake is None:
            held[conv.reach :] = values.view(length, -1)
        else:
            self._snake(values, held[conv.reach :])
        self._past = held[length:].clone()
        return held

    def __call__(self, values: Tensor) -> Tensor:
        """Read the next positions, of any shape, and return `[L, outputs]`."""
        return self._conv(self.held(values))


class _Residual(_Layer):
    """A residual unit, whose values lack `missing` `[C]` afterwards.

    The second Snake's frequency is part of the first convolution: it is one cosine.
    """

    def __init__(self, unit: Any, length: int, missing: Tensor) -> None:
        first, second = unit.conv1.conv, unit.conv2.conv
        frequency, half = _factors(unit.act2)
        conv = _Conv(
            first.weight.detach() * frequency[:, None, None], first.bias.detach() * frequency,
            first.dilation[0],
        )  # fmt: skip
        super().__init__(conv, _Snake(unit.act1, length, missing))
        repeats = _repeats(length, len(half))
        self._half = (-half * frequency).float().repeat(repeats)
        matrix = second.weight.detach().double()[:, :, 0]
        self._matrix = (matrix / frequency).float().t().contiguous()
        self.missing = missing + second.bias.detach().double() + matrix @ half

    def __call__(self, values: Tensor) -> Tensor:
        """Read the next positions and add to them."""
        mixed = super().__call__(values)
        tiled = mixed.view(-1, len(self._half))
        tiled.addcmul_(_cosines(tiled, torch.empty_like(tiled)), self._half)
        return values.view_as(mixed).addmm_(mixed, self._matrix)


class _ConvNext(_Layer):
    """A ConvNeXt block, whose convolution keeps channels apart."""

    def __init__(self, block: Any) -> None:
        conv = block.dwconv.conv
        self._block, self._bias = block, conv.bias.detach()
        self._reach, self._taps = conv.kernel_size[0] - 1, conv.weight.detach()[:, 0].t()

    def start(self) -> None:
        """Begin a clip: it is read as a whole."""

    def __call__(self, values: Tensor) -> Tensor:
        """Read all positions."""
        block = self._block
        values = values.view(-1, len(self._bias))
        held, mixed = F.pad(values, (0, 0, self._reach, 0)), self._bias
        for place, tap in enumerate(self._taps):
            mixed = torch.addcmul(mixed, held[place : place + len(values)], tap)
        mixed = block.pwconv2(block.act(block.pwconv1(block.norm(mixed))))
        return torch.addcmul(values, mixed, block.gamma)


def _cosines(values: Tensor, out: Tensor) -> Tensor:
    """Write cosines to `out`; NumPy takes half of torch's time."""
    np.cos(values.numpy(), out=out.numpy())
    return out


def _factors(snake: Any) -> tuple[Tensor, Tensor]:
    """Return `2 a` and `1 / 2b` of a Snake, `[C]` each."""
    beta = snake.beta.detach().double().exp() + snake.no_div_by_zero
    return 2 * snake.alpha.detach().double().exp(), 0.5 / beta


def _repeats(length: int, channels: int) -> int:
    """Return how many positions are multiplied with their factors in one go."""
    most = max(1, TILE // channels)
    return next(count for count in range(most, 0, -1) if length % count == 0)


def _spread(conv: nn.ConvTranspose1d) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the convolution that does what a transposed one does.

    The outputs of one position, as many as the stride, stand one after another.
    """
    inputs, outputs, size = conv.weight.shape
    stride = conv.stride[0]
    spread = conv.weight.view(inputs, outputs, size // stride, stride).flip(2)
    weight = spread.permute(3, 1, 0, 2).reshape(stride * outputs, inputs, size // stride)
    assert conv.bias is not None
    return weight, conv.bias.repeat(stride)


def _grouped(weight: Tensor, group: int) -> Tensor:
    """Return the weight `[group, group C, 2]` that makes as many positions at once.

    Of a weight `[1, C, taps]` whose taps look back no further than the group before.
    """
    if group == 1:
        return weight
    _, channels, taps = weight.shape
    grouped = weight.new_zeros(group, 2 * group, channels)
    for position in range(group):
        start = group + position - taps + 1
        grouped[position, start : start + taps] = weight[0].t()
    return grouped.view(group, 2, group * channels).transpose(1, 2)
