"""Every sentence that the decisions' records hold: `templates/sentences.j2` has the words."""

from pathlib import Path

from voxadapt.core.records import Record
from voxadapt.scoring.wording import Sentences
from voxadapt.selection.pairing import BASE

TONES = {"confirmed": "good", "contradicted": "bad", "not_measurable": "bad"}  # of a verdict


def called(name: str) -> str:
    """Name a candidate inside a sentence."""
    return "the Base" if name == BASE else name


say = Sentences(Path(__file__).parent, {"called": called}).say


def verdict(confirm: Record) -> tuple[str, str]:
    """Say what the confirmation has shown, and the tone of it: `good`, `unsure` or `bad`."""
    return say("verdict", confirm), TONES.get(confirm["verdict"], "unsure")


def headline(confirm: Record, name: str, keep: str) -> str:
    """Say in a line what to do: only what is confirmed, and usable, is recommended.

    `keep` is what to say where the Base is kept.
    """
    said = say("headline", confirm, name, keep)
    return said[:1].upper() + said[1:]


def caution(confirm: Record) -> str:
    """Say what a user of the choice must know; nothing where it is confirmed and good enough."""
    said = [] if confirm["verdict"] in ("confirmed", "base_kept") else [confirm["sentence"]]
    good = confirm.get("usable")
    if good is not None and good["state"] == "not_yet":
        said.append(good["sentence"])
    return "".join(f" {sentence}" for sentence in said)
