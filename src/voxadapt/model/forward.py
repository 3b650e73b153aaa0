"""From a batch to logits, with the stock modules and the arithmetic of stock generation.

Shape legend: B rows, L positions, D talker width, K codebooks, P codec_0 targets in the batch,
M frames in the batch, V codec vocabulary, C codebook size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voxadapt.model.layout import Batch
from voxadapt.model.stock import Talker, TtsModel


@dataclass(frozen=True)
class Predictions:
    """Logits beside what they must predict."""

    c0_logits: Tensor  # `[P, V]` talker logits
    c0_targets: Tensor  # `[P]` codec_0 ids: every frame's, and the end of speech of every row
    sub_logits: tuple[Tensor, ...]  # code predictor logits `[M, C]` of codebooks 1 … K-1
    sub_targets: Tensor  # `[M, K-1]`


def embed(
    talker: Talker,
    batch: Batch,
    speaker_vector: Tensor | None,
    frame_keep_mask: Tensor | None = None,
) -> Tensor:
    """Sum the text and codec embeddings of every position: `[B, L, D]`.

    The text passes through `text_projection`, which has a bias, so the mask is applied after it.
    The speaker vector, `[D]` or for each row `[B, 1, D]`, goes to the speaker positions. Frames
    where `frame_keep_mask`, `[B, L]` bool, is false keep their place without their codes; None: all
    are kept, as in generation.
    """
    text_BLD = talker.text_projection(talker.get_text_embeddings()(batch.text_ids))
    inputs_BLD: Tensor = text_BLD * batch.text_mask[..., None]
    codec_BLD = talker.get_input_embeddings()(batch.codec_ids)
    inputs_BLD = inputs_BLD + codec_BLD * batch.codec_mask[..., None]
    frame_mask = (
        batch.frame_mask if frame_keep_mask is None else batch.frame_mask & frame_keep_mask
    )[..., None]
    for table, codes_BL in zip(_code_tables(talker), batch.codes.unbind(-1), strict=True):
        inputs_BLD = inputs_BLD + table(codes_BL) * frame_mask
    if speaker_vector is not None:
        vector = speaker_vector.to(inputs_BLD.device, inputs_BLD.dtype)
        inputs_BLD = inputs_BLD + vector * batch.speaker_mask[..., None]
    return inputs_BLD


def talker_hidden(talker: Talker, inputs_BLD: Tensor) -> Tensor:
    """Return the talker's normed last hidden states `[B, L, D]`.

    Sequences are padded on the right, so real positions count 0, 1, 2 … as in generation, and no
    real position comes after padding: causal attention hides it as it hides what lies ahead. All
    count as real here, which spares a mask for each row and the copies of keys that go with it.
    """
    rows, length, _ = inputs_BLD.shape
    positions = torch.arange(length, device=inputs_BLD.device).expand(3, rows, length)
    output = talker.model(
        inputs_embeds=inputs_BLD,
        attention_mask=torch.ones_like(positions[0]),
        position_ids=positions,
        use_cache=False,
    )
    hidden_BLD: Tensor = output.last_hidden_state
    return hidden_BLD


def sub_talker_logits(talker: Talker, hidden_MD: Tensor, codes_MK: Tensor) -> tuple[Tensor, ...]:
    """Teacher-force the code predictor on single frames: logits `[M, C]` of codebooks 1 … K-1.

    Its sequence is the talker's hidden state, then the embeddings of codebooks 0 … K-2; the output
    on the embedding of codebook k is head k's and predicts codebook k + 1. `hidden_MD` is the state
    that produced codec_0 of each frame.
    """
    predictor = talker.code_predictor
    steps = [hidden_MD]
    for table, codes_M in zip(_code_tables(talker)[:-1], codes_MK.unbind(-1)[:-1], strict=True):
        steps.append(table(codes_M))
    inputs_MKD = predictor.small_to_mtp_projection(torch.stack(steps, dim=1))
    hidden = predictor.model(inputs_embeds=inputs_MKD, use_cache=False).last_hidden_state
    heads = predictor.get_output_embeddings()
    # Taken apart at once: a slice has a gradient of the size of the whole. Never joined: the
    # losses of a codebook stay in a core's cache.
    return tuple(head(at) for head, at in zip(heads, hidden.unbind(1)[1:], strict=True))


def predict(
    model: TtsModel,
    batch: Batch,
    speaker_vector: Tensor | None,
    frame_keep_mask: Tensor | None = None,
) -> Predictions:
    """Run talker and code predictor on a batch, at supervised positions only.

    Speaker vector and `frame_keep_mask` are those of `embed`: targets stay where the talker gets no
    codes as input.
    """
    talker = model.talker
    inputs_BLD = embed(talker, batch, speaker_vector, frame_keep_mask)
    hidden_BLD = talker_hidden(talker, inputs_BLD)
    # The one shift: what stands at a position is predicted by the position before it.
    row, position = batch.label_places
    c0_logits = talker.codec_head(hidden_BLD[row, position - 1])
    c0_targets = batch.labels[row, position]
    # The code predictor completes the frame whose codec_0 that same hidden state produced.
    row, position = batch.frame_places
    codes_MK = batch.codes[row, position]
    sub_logits = sub_talker_logits(talker, hidden_BLD[row, position - 1], codes_MK)
    return Predictions(c0_logits, c0_targets, sub_logits, codes_MK[:, 1:])


def _code_tables(talker: Talker) -> list[nn.Embedding]:
    """Return the K embedding tables of a frame, codebook 0 first."""
    return [talker.get_input_embeddings(), *talker.code_predictor.get_input_embeddings()]
