"""The speakers of the miniature world: two synthesisers' voices, moved apart.

Of 211 candidates (variant x pitch x rate x shift of all frequencies) those were taken whose
Resemblyzer embeddings differ most, one after the other: no two of the first 40 are nearer than
a cosine of .78, of all than .85; clips of one voice are near .87.
"""

from __future__ import annotations

from dataclasses import dataclass


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


def _espeak(code: str, speed: float, pitch: int, shift: float = 1.0) -> Voice:
    name = code.replace("-", "").replace("+", "_").lower() + (f"_{shift * 100:.0f}")
    return Voice(name, "espeak", code, speed, pitch, shift)


def _flite(code: str, speed: float, pitch: int, shift: float = 1.0) -> Voice:
    name = f"flite_{code}" + (f"_{pitch}_{shift * 100:.0f}" if pitch or shift != 1 else "")
    return Voice(name, "flite", code, speed, pitch, shift)


#: Voices that the Base talker learns from, the most different first.
BASE_VOICES: tuple[Voice, ...] = (
    _flite("rms", 0.95, 0),
    _flite("awb", 0.95, 0),
    _flite("kal16", 0.95, 0),
    _espeak("en-us+travis", 172, 55),
    _espeak("en-us+f5", 158, 50),
    _espeak("en-us+iven4", 158, 30, 0.88),
    _espeak("en-us+anika", 165, 55, 1.14),
    _espeak("en-us+aunty", 150, 50, 1.14),
    _espeak("en-us+boris", 165, 65, 0.8),
    _espeak("en-us+Hugo", 180, 65),
    _espeak("en-us+Marco", 165, 30),
    _espeak("en-us+klatt5", 165, 50, 1.14),
    _espeak("en-us+adam", 158, 30, 0.8),
    _flite("kal16", 0.95, 210, 1.2),
    _espeak("en-us+steph3", 158, 55, 0.88),
    _espeak("en-us+iven2", 172, 55, 1.14),
    _espeak("en-us+pedro", 180, 30),
    _espeak("en-us+RicishayMax3", 150, 50, 1.28),
    _espeak("en-us+boris", 165, 65),
    _espeak("en-us+shelby", 180, 55, 0.88),
    _espeak("en-us+steph", 158, 50, 1.14),
    _espeak("en-us+Andy", 150, 55, 0.88),
    _flite("awb", 0.95, 170, 1.3),
    _espeak("en-us+Lee", 158, 40, 0.88),
    _flite("kal", 0.95, 185),
    _espeak("en-us+iven", 165, 50),
    _espeak("en-us+sandro", 180, 45),
    _espeak("en-us+edward2", 172, 30),
    _espeak("en-us+Gene", 172, 40),
    _espeak("en-us+marcelo", 172, 55, 0.8),
    _espeak("en-us+rob", 165, 50),
    _espeak("en-us+grandma", 150, 50, 0.88),
    _flite("rms", 0.95, 210, 1.2),
    _espeak("en-us+victor", 150, 45, 1.28),
    _flite("kal16", 0.95, 120, 0.85),
    _espeak("en-us+miguel", 150, 45, 0.88),
    _espeak("en-us+linda", 165, 45),
    _espeak("en-us+pedro", 165, 30, 0.8),
    _espeak("en-us+Alicia", 150, 45, 1.14),
    _flite("rms", 0.95, 120, 0.85),
    _espeak("en-us+david", 165, 50, 1.28),
    _espeak("en-us+RicishayMax2", 150, 55),
    _espeak("en-us+Andrea", 172, 40),
    _espeak("en-us+pedro", 180, 40, 1.14),
    _espeak("en-us+ed", 158, 65),
    _flite("kal16", 0.95, 0, 1.15),
    _espeak("en-us+f4", 180, 40),
    _espeak("en-us+antonio", 165, 50),
    _espeak("en-us+klatt3", 158, 55, 1.28),
    _espeak("en-us+rob", 150, 65, 0.88),
    _espeak("en-us+Diogo", 150, 40),
    _espeak("en-us+klatt3", 165, 45),
    _espeak("en-us+benjamin", 158, 45, 0.88),
    _espeak("en-gb+kaukovalta", 150, 45),
    _espeak("en-us+Hugo", 158, 50, 1.28),
    _flite("awb", 0.95, 95, 1.1),
    _espeak("en-us+Annie", 158, 30),
    _espeak("en-us+Alex", 180, 30, 1.28),
    _flite("awb", 0.95, 120, 0.85),
    _espeak("en-us+norbert", 158, 50),
    _espeak("en-us+Alex", 165, 65, 0.88),
    _espeak("en-us+Michael", 165, 45, 0.88),
    _espeak("en-us+Andy", 172, 55),
    _espeak("en-us+iven4", 172, 45, 1.28),
    _espeak("en-us+travis", 172, 40, 1.14),
    _espeak("en-us+zac", 150, 50),
    _espeak("en-us+klatt4", 180, 45, 0.88),
    _espeak("en-us+m2", 172, 45),
    _espeak("en-us+david", 158, 30),
    _espeak("en-us+paul", 172, 45),
)

#: Voices that held-out sentences are spoken by.
KNOWN_VOICES = BASE_VOICES[:40]

#: Speaker adaptation target; the Base talker and its speaker encoder never hear it.
TARGET_VOICE = _flite("slt", 0.95, 0)

#: Malay voices; the codec and Whisper hear them, the Base talker never does.
MALAY_VOICES: tuple[Voice, ...] = (
    _espeak("ms+Annie", 160, 50),
    _espeak("ms+adam", 160, 45),
    _espeak("ms+f2", 160, 55),
    _espeak("ms+m3", 160, 50),
    _espeak("ms+linda", 155, 50),
    _espeak("ms+david", 155, 45),
    _espeak("ms+steph", 165, 50, 1.14),
    _espeak("ms+m5", 160, 50),
    _espeak("ms+pedro", 160, 30, 0.8),
    _espeak("ms+f5", 155, 50),
)

#: Voice of the Malay corpus that is shipped.
MALAY_TARGET = MALAY_VOICES[0]

#: Voices shipped with a few clips each (similarity floor).
FLOOR_VOICES: tuple[str, ...] = (
    "flite_rms",
    "flite_awb",
    "flite_kal16",
    "enus_travis_100",
    "enus_f5_100",
    "enus_anika_114",
    "enus_marco_100",
    "enus_boris_80",
)


def all_voices() -> dict[str, Voice]:
    """Return every voice by name."""
    return {v.name: v for v in (*BASE_VOICES, TARGET_VOICE, *MALAY_VOICES)}
