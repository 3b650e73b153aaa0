"""Every number of the miniature's recipe, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

SAMPLE_RATE = 24_000
HOP = 1_920
FRAME_RATE = 12.5


@dataclass(frozen=True)
class SpeechRecipe:
    """Sizes of the corpora.

    Attributes:
        base: English utterances for the Base talker (also codec, Whisper).
        respelled: Utterances of invented words, written syllable by syllable as dictionaries
            print a pronunciation ("pah-yoong"), for the Base talker only.
        target_other: Utterances of the target voice for codec and Whisper only.
        malay: Malay utterances for codec and Whisper only.
        heldout_en: Held-out English sentences, spread over the known voices.
        heldout_target: Held-out sentences of the target voice (measurement only).
        heldout_ms: Held-out Malay sentences.
        selection_en: English sentences that choose among checkpoints.
        speaker: Utterances of the shipped speaker corpus.
        malay_corpus: Utterances of the shipped Malay corpus.
        malay_text: Shipped Malay sentences without audio.
        floor_clips: Clips of each floor voice.
        test_set: Sentences of each shipped test set (text only).
        lead_s: Silence before speech, in seconds.
        tail_s: Silence after speech, in seconds.
        max_s: Longest clip kept, in seconds.
    """

    base: int = 18_000
    respelled: int = 12_000
    target_other: int = 1_600
    malay: int = 4_000
    heldout_en: int = 240
    heldout_target: int = 240
    heldout_ms: int = 240
    selection_en: int = 80
    speaker: int = 800
    malay_corpus: int = 320
    malay_text: int = 440
    floor_clips: int = 8
    test_set: int = 30
    lead_s: float = 0.05
    tail_s: float = 0.10
    max_s: float = 12.0


@dataclass(frozen=True)
class CodecRecipe:
    """Sizes and schedule of the codec.

    Attributes:
        seed: Seed of initialisation and data order.
        steps: Training steps in all.
        warm_steps: Steps without quantisation.
        settle_steps: Steps in which the reading heads of a codec that did not begin anew learn
            alone.
        batch: Decoding windows a step, and the most clips.
        window: Frames of a decoding window.
        frames: The most frames that are encoded a step.
        buckets: Clip lengths in frames that a batch is padded to.
        lr: Peak learning rate.
        save_every: Steps between checkpoints.
    """

    seed: int = 11
    steps: int = 6_200
    warm_steps: int = 500
    settle_steps: int = 300
    batch: int = 8
    window: int = 12
    frames: int = 304
    buckets: tuple[int, ...] = (16, 24, 30, 36, 48, 88, 152)
    lr: float = 5e-4
    save_every: int = 50
    fit_frames: int = 6_000
    encoder_filters: int = 12
    encoder_hidden: int = 128
    layers: int = 2
    quantizers: int = 8
    codebook_size: int = 256
    codebook_dim: int = 64
    latent: int = 128
    decoder_dim: int = 192
    output_scale: float = 0.1
    decay: float = 0.98
    quantizer_dropout: float = 0.25
    commit_weight: float = 0.05
    shape_weight: float = 0.15
    read_weight: float = 0.3
    mel_weight: float = 1.0


@dataclass(frozen=True)
class WhisperRecipe:
    """Sizes and schedule of the recogniser.

    Attributes:
        seed: Seed of initialisation and data order.
        steps: Training steps on real clips.
        tune_steps: Further steps with codec copies mixed in.
        tune_lr: Their peak learning rate.
        lr: Peak learning rate.
        audio_ctx: Encoder positions, 20 ms each (14 s).
        full_share: Share of batches padded to the whole context.
        copied_share: Share of batches of codec copies where copies are given.
        joined_share: Share of batches of up to four clips one after the other: few sentences are
            long, and a recogniser that met few loses its place in them.
        guide_weight: Weight of attention astray (:mod:`miniature.alignment`).
        letters_weight: Weight of the letters that the encoder spells (CTC).
    """

    seed: int = 12
    steps: int = 4_500
    lr: float = 1.5e-3
    tune_steps: int = 23_000
    tune_lr: float = 1e-3
    batch: int = 24
    save_every: int = 250
    smoothing: float = 0.02
    audio_ctx: int = 700
    text_ctx: int = 128
    state: int = 96
    heads: int = 4
    audio_layers: int = 5
    text_layers: int = 2
    full_share: float = 0.15
    copied_share: float = 0.5
    joined_share: float = 0.5
    guide_weight: float = 1.0
    letters_weight: float = 0.2


@dataclass(frozen=True)
class TalkerRecipe:
    """Sizes and schedule of the Base talker.

    Attributes:
        seed: Seed of initialisation and data order.
        text_vocab: Size of the byte-level BPE without special tokens.
        mask_share: Largest share of frames whose code embeddings are hidden.
        mask_chance: Share of utterances with hidden frames.
        tagged_share: Share of rows with a language tag.
        streaming_share: Share of rows in the streaming layout.
        predictor_share: Share of frames that the code predictor learns from.
        guide_weight: Weight of attention astray (:mod:`miniature.alignment`).
        joined_share: Share of batches of up to four clips of a voice, one after the other.
    """

    seed: int = 13
    steps: int = 20_200
    lr: float = 1e-3
    batch: int = 16
    save_every: int = 200
    eval_every: int = 1_200
    autocast: bool = True
    text_vocab: int = 400
    hidden: int = 256
    layers: int = 5
    text_hidden: int = 192
    predictor_hidden: int = 192
    predictor_layers: int = 2
    codebook_size: int = 256
    quantizers: int = 8
    mask_share: float = 0.8
    mask_chance: float = 0.9
    tagged_share: float = 0.5
    streaming_share: float = 0.25
    predictor_share: float = 0.5
    sub_weight: float = 1.0
    guide_weight: float = 1.0
    joined_share: float = 0.3
    temperature: float = 0.2
    top_k: int = 30
    max_new_tokens: int = 170


@dataclass(frozen=True)
class Recipe:
    """The whole recipe.

    Attributes:
        seed: Seed that everything is derived from.
        speech: Corpora.
    """

    seed: int = 20_261_121
    speech: SpeechRecipe = field(default_factory=SpeechRecipe)
    codec: CodecRecipe = field(default_factory=CodecRecipe)
    whisper: WhisperRecipe = field(default_factory=WhisperRecipe)
    talker: TalkerRecipe = field(default_factory=TalkerRecipe)
