"""Every number of the miniature's recipe, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

SAMPLE_RATE = 24_000
HOP = 1_920
FRAME_RATE = 12.5


@dataclass(frozen=True)
class Voice:
    """One synthetic speaker.

    Attributes:
        name: Identifier, safe as a folder name.
        engine: ``espeak`` or ``flite``.
        code: Voice argument of the engine.
        speed: Words a minute for espeak; duration stretch for flite.
        pitch: Pitch for espeak (0-99); mean fundamental in Hz for flite, 0 for its own.
        shift: Factor on every frequency (fundamental and formants), by resampling.
    """

    name: str
    engine: str
    code: str
    speed: float
    pitch: int = 50
    shift: float = 1.0


def _espeak(accent: str, variant: str, speed: float, pitch: int) -> Voice:
    name = f"{accent.replace('-', '')}_{variant.lower()}"
    return Voice(name, "espeak", f"{accent}+{variant}", speed, pitch)


#: Voices that the Base talker learns from.
BASE_VOICES: tuple[Voice, ...] = (
    _espeak("en-us", "adam", 165, 45),
    _espeak("en-us", "Alicia", 170, 55),
    _espeak("en-us", "Andy", 165, 50),
    _espeak("en-us", "Annie", 170, 55),
    _espeak("en-us", "belinda", 165, 50),
    _espeak("en-us", "benjamin", 165, 45),
    _espeak("en-us", "caleb", 170, 50),
    _espeak("en-us", "david", 160, 45),
    _espeak("en-us", "ed", 170, 50),
    _espeak("en-us", "f1", 165, 55),
    _espeak("en-us", "f2", 170, 60),
    _espeak("en-us", "f3", 165, 50),
    _espeak("en-us", "f4", 170, 50),
    _espeak("en-us", "linda", 160, 50),
    _espeak("en-us", "m1", 165, 40),
    _espeak("en-us", "m2", 170, 35),
    _espeak("en-us", "m3", 165, 50),
    _espeak("en-us", "m4", 160, 45),
    _espeak("en-us", "m5", 165, 55),
    _espeak("en-us", "max", 165, 45),
    _espeak("en-us", "steph", 170, 50),
    _espeak("en-us", "victor", 165, 45),
    _espeak("en-us", "zac", 165, 60),
    _espeak("en-gb", "m7", 165, 45),
    _espeak("en-gb", "f5", 165, 55),
    _espeak("en-gb", "shelby", 170, 50),
    Voice("flite_rms", "flite", "rms", 0.95, 0),
    Voice("flite_awb", "flite", "awb", 0.95, 0),
    Voice("flite_kal16", "flite", "kal16", 0.95, 0),
)

#: Voices that only the Base talker learns from: the recorded voices, higher or lower. With
#: three recorded voices alone, a fourth one is too far from all that the Base knows.
SHIFTED_VOICES: tuple[Voice, ...] = (
    Voice("flite_awb_a", "flite", "awb", 0.95, 140, 1.20),
    Voice("flite_awb_b", "flite", "awb", 0.95, 170, 1.10),
    Voice("flite_awb_c", "flite", "awb", 0.95, 185, 1.00),
    Voice("flite_awb_d", "flite", "awb", 0.95, 110, 0.92),
    Voice("flite_kal16_a", "flite", "kal16", 0.95, 150, 1.18),
    Voice("flite_kal16_b", "flite", "kal16", 0.95, 170, 1.08),
    Voice("flite_kal16_c", "flite", "kal16", 0.95, 120, 0.94),
    Voice("flite_rms_a", "flite", "rms", 0.95, 0, 1.15),
    Voice("flite_rms_b", "flite", "rms", 0.95, 0, 1.30),
    Voice("flite_rms_c", "flite", "rms", 0.95, 0, 1.45),
)

#: Speaker adaptation target; the Base talker and its speaker encoder never hear it.
TARGET_VOICE = Voice("flite_slt", "flite", "slt", 0.95, 0)

#: Malay voices; the codec and Whisper hear them, the Base talker never does.
MALAY_VOICES: tuple[Voice, ...] = (
    _espeak("ms", "Annie", 160, 50),
    _espeak("ms", "adam", 160, 45),
    _espeak("ms", "f2", 160, 55),
    _espeak("ms", "m3", 160, 50),
    _espeak("ms", "linda", 155, 50),
    _espeak("ms", "david", 155, 45),
    _espeak("ms", "steph", 165, 50),
    _espeak("ms", "m5", 160, 50),
)

#: Voice of the Malay corpus that is shipped.
MALAY_TARGET = MALAY_VOICES[0]

#: Voices shipped with a few clips each (similarity floor).
FLOOR_VOICES: tuple[str, ...] = (
    "enus_adam",
    "enus_f2",
    "enus_m3",
    "enus_linda",
    "enus_steph",
    "flite_rms",
    "flite_awb",
    "flite_kal16",
)


@dataclass(frozen=True)
class SpeechRecipe:
    """Sizes of the corpora.

    Attributes:
        base: English utterances for the Base talker (also codec, Whisper).
        target_other: Utterances of the target voice for codec and Whisper only.
        malay: Malay utterances for codec and Whisper only.
        heldout_en: Held-out English sentences, spread over the known voices.
        heldout_target: Held-out sentences of the target voice (measurement only).
        heldout_ms: Held-out Malay sentences.
        speaker: Utterances of the shipped speaker corpus.
        malay_corpus: Utterances of the Malay corpus.
        malay_shipped: How many of them are shipped.
        malay_text: Shipped Malay sentences without audio.
        floor_clips: Clips of each floor voice.
        whisper_target: Further utterances of the target voice, for Whisper only.
        whisper_flite: Further utterances of the other flite voices, for Whisper only.
        speaker_more: Further utterances of the shipped speaker corpus.
        speaker_rest: The last ones, drawn after all others.
        shifted: English utterances of the shifted voices, for the Base talker only.
        respelled: Utterances of invented words, written syllable by syllable as dictionaries
            print a pronunciation ("pah-yoong"), for the Base talker only.
        lead_s: Silence before speech, in seconds.
        tail_s: Silence after speech, in seconds.
        max_s: Longest clip kept, in seconds.
    """

    base: int = 10_000
    target_other: int = 400
    malay: int = 2_400
    heldout_en: int = 232
    heldout_target: int = 60
    heldout_ms: int = 96
    speaker: int = 190
    malay_corpus: int = 170
    malay_shipped: int = 170
    malay_text: int = 400
    floor_clips: int = 8
    whisper_target: int = 1_600
    whisper_flite: int = 1_500
    speaker_more: int = 330
    shifted: int = 4_000
    respelled: int = 8_000
    speaker_rest: int = 280
    lead_s: float = 0.05
    tail_s: float = 0.10
    max_s: float = 5.0


@dataclass(frozen=True)
class CodecRecipe:
    """Sizes and schedule of the codec.

    Attributes:
        seed: Seed of initialisation and data order.
        steps: Training steps in all.
        warm_steps: Steps without quantisation.
        batch: Clips a step.
        window: Frames that are decoded of each clip.
        buckets: Clip lengths in frames that a batch is padded to.
        lr: Peak learning rate.
    """

    seed: int = 11
    steps: int = 2_000
    warm_steps: int = 500
    batch: int = 8
    window: int = 12
    buckets: tuple[int, ...] = (24, 30, 36)
    lr: float = 1e-3
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
    quantizer_dropout: float = 0.5
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
        audio_ctx: Encoder positions, 20 ms each (7 s).
        full_share: Share of batches padded to the whole context.
        copied_share: Share of codec copies where copies are given.
    """

    seed: int = 12
    steps: int = 3_000
    lr: float = 1.5e-3
    tune_steps: int = 4_400
    tune_lr: float = 1e-3
    batch: int = 24
    save_every: int = 250
    smoothing: float = 0.02
    audio_ctx: int = 350
    text_ctx: int = 64
    state: int = 96
    heads: int = 4
    audio_layers: int = 3
    text_layers: int = 2
    full_share: float = 0.25
    copied_share: float = 0.5


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
    """

    seed: int = 13
    steps: int = 8_000
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
    temperature: float = 0.6
    top_k: int = 30
    max_new_tokens: int = 120


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
