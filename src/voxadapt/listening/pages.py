"""Listening tests: blind pages to hear and vote on, and what the votes say.

Two pages, each one file that works offline: `ab.html` asks which of two clips is closer to the
speaker and which is better spoken; `mos.html` asks for ratings from 1 to 5 and hides recordings of
the speaker among the clips. The pages know clips by opaque ids; `key.json` says whose they are and
stays at home. All clips have one sample rate and one loudness: neither may decide.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from markupsafe import Markup

from voxadapt.core import paths
from voxadapt.core.errors import Problem, raise_problems
from voxadapt.core.files import (
    first_by_hash,
    json_or_none,
    read_json,
    sha256_bytes,
    write_atomic,
    write_json,
)
from voxadapt.core.lineage import sealed
from voxadapt.core.params import Params, candidate_name
from voxadapt.core.problems import problem, user_error
from voxadapt.core.provenance import fingerprint
from voxadapt.core.records import Files, Record
from voxadapt.core.templating import SHARED, inline, new_environment
from voxadapt.data.audio import (
    MP3_RATES_HZ,
    AudioError,
    encode,
    frame_levels_db,
    probe,
    read_mono,
    speech_frames,
)
from voxadapt.listening import votes
from voxadapt.listening.votes import KeyPage, KeyTrial, Kind, ListeningKey, Unheard

TITLE = "The listening pages cannot be made."
TEMPLATES = Path(__file__).parent / "templates"
LEVEL_DBFS = -26.0  # of the frames that hold speech
PEAK_LIMIT = 0.89  # -1 dBFS: MP3 overshoots
SHARE_REPEATED = 0.1
MIN_REPEATED = 2
QUESTIONS: dict[Kind, list[Record]] = read_json(TEMPLATES / "questions.json")
TITLES: dict[Kind, str] = {"ab": "Which is better?", "mos": "How good is it?"}


@dataclass
class Sounds:
    """Clips at one rate and one loudness, MP3 by opaque id; those that cannot be read are noted."""

    rate_hz: int
    uris: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _ids: dict[str, str] = field(default_factory=dict)

    def id_of(self, row: Record) -> str:
        """Return the opaque id of a score row's clip."""
        wav = str(row["wav"])
        if wav not in self._ids:
            try:
                samples, _ = read_mono(wav, self.rate_hz)
                data = encode(levelled(samples, self.rate_hz), self.rate_hz)
            except AudioError as error:
                self.problems.append(problem("listening.unreadable_clip", wav, found=error))
                data = b""
            # The sound itself is in the hash: nobody without the clips can try names against it.
            place = [row["candidate"], row["split"], row["text_id"], row["take"]]
            self._ids[wav] = fingerprint([place, sha256_bytes(data)], 12)
            encoded = base64.b64encode(data).decode()
            self.uris[self._ids[wav]] = f"data:audio/mpeg;base64,{encoded}"
        return self._ids[wav]


def levelled(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """Bring the speech of a clip (full scale 1.0) to the level of all, without clipping it.

    A clip without speech keeps its level.
    """
    levels_db = frame_levels_db(samples, rate_hz)
    spoken = speech_frames(levels_db)
    if not spoken.any():
        return samples
    speech_db = 10.0 * np.log10(np.mean(10.0 ** (levels_db[spoken] / 10.0)))
    gain = 10.0 ** ((LEVEL_DBFS - speech_db) / 20.0)
    gain = min(gain, PEAK_LIMIT / max(float(np.abs(samples).max()), 1e-9))
    scaled: np.ndarray = (samples * gain).astype(np.float32)
    return scaled


def resolve_pairs(pairs: Iterable[Sequence[str]], selection: Record) -> list[tuple[str, str]]:
    """Turn what the parameters name into candidates.

    A pair is two of base, chosen, runner-up, an epoch or its number. Where the Base is kept,
    `chosen` against the Base means the best of the others: was keeping it right? A pair that turns
    out to be one candidate twice is left out where another remains.
    """
    names = [entry["name"] for entry in selection["candidates"]]
    others = [entry for entry in selection["candidates"] if entry["name"] != "base"]
    rival = max(others, key=lambda entry: (entry["p_best"], entry["sim"]["point"] or 0.0))["name"]
    resolved, alike, problems = [], [], []
    for pair in pairs:
        known = {"chosen": selection["chosen"], "runner-up": selection["runner_up"] or rival}
        if selection["chosen"] == "base" and "base" in pair:
            known["chosen"] = rival
        first, second = (known.get(name, candidate_name(name)) for name in pair)
        where = f"pair {pair[0]} {pair[1]}"
        listed = ", ".join(["chosen", "runner-up", *names])
        problems += [problem("listening.unknown_candidate", where, known=listed, found=name)
                     for name in (first, second) if name not in names]  # fmt: skip
        if first == second:  # such as the chosen and epoch-2, where that was chosen
            alike.append(problem("listening.same_twice", where, found=first))
        else:
            resolved.append((first, second))
    raise_problems(problems or (alike if not resolved else []), TITLE)
    return list(dict.fromkeys(resolved))


@dataclass(frozen=True)
class Material:
    """What can be heard: sentences by hash, a take of each by candidate (`real`: recordings)."""

    split: str
    texts: list[str]
    rows: dict[str, dict[str, Record]]
    references: list[Record]

    def reference(self, index: int, row: Record) -> Record:
        """Return a recording of a clip's speaker and of another sentence, another one each time."""
        own = [other for other in self.references if other.get("speaker") == row.get("speaker")]
        others = [other for other in own if other["text_id"] != row["text_id"]]
        return (others or own)[index % max(1, len(others))]


def _material(root: Path, names: Sequence[str], num_sentences: int) -> Material:
    """Read the rows of some candidates: of the untouched split where all of them spoke it."""
    confirmed = all((root / paths.CONFIRMATION / name / "rows.jsonl").is_file() for name in names)
    split = "confirmation" if confirmed else "selection"
    base = paths.CONFIRMATION if confirmed else paths.SCORES
    files, real = Files(root), paths.SPEAKER.reference / "real"
    listed = {name: files.rows(base / name, f"score {name}") for name in names}
    recordings = [row for row in files.rows(real, "codes") if _has_clip(row)]
    if not files.problems and not recordings:
        files.problems.append(problem("listening.no_recordings", real))
    raise_problems(files.problems, TITLE)
    spoken = {
        name: {(row["text_id"], row["take"]): row["text"] for row in rows}
        for name, rows in listed.items()
    }
    texts = {text_id: text for (text_id, _), text in spoken[names[0]].items()}
    problems = [
        problem("listening.other_sentences", base / name, count=len(texts), first=names[0],
                stage="confirm" if confirmed else f"score {name}")
        for name in names
        if spoken[name] != spoken[names[0]]
    ]  # fmt: skip
    raise_problems(problems, TITLE)
    chosen = first_by_hash(texts, num_sentences)
    takes = sorted({row["take"] for row in listed[names[0]]})
    take_of = {text_id: takes[int(fingerprint(text_id), 16) % len(takes)] for text_id in chosen}
    rows = {
        name: {row["text_id"]: row for row in own if take_of.get(row["text_id"]) == row["take"]}
        for name, own in listed.items()
    }
    order = first_by_hash(row["text_id"] for row in recordings)
    references = sorted(recordings, key=lambda row: order.index(row["text_id"]))
    rows["real"] = {row["text_id"]: row for row in references if row["text_id"] in take_of}
    return Material(split, chosen, rows, references)


def _common_rate_hz(rows: Iterable[Record]) -> int:
    """Return the rate of the poorest clip: bandwidth must not tell recordings from speech."""
    rates = [row["sample_rate_hz"] or probe(row["wav"]).sample_rate_hz for row in rows]
    lowest = min(rates)
    return max((rate for rate in MP3_RATES_HZ if rate <= lowest), default=MP3_RATES_HZ[0])


# --- the pages ---------------------------------------------------------------------------------


def write_listening(
    params: Params,
    root: str | Path = ".",
    *,
    out: Path = paths.LISTEN,
    pairs: Sequence[Sequence[str]] | None = None,
    num_sentences: int | None = None,
) -> ListeningKey:
    """Write `ab.html`, `mos.html` and their key, and return it; equal clips give equal bytes.

    Pairs and the number of sentences are the parameters' where they are not given.
    """
    root = Path(root)
    files = Files(root)
    selection = files.read(paths.SELECTION, "select")
    raise_problems(files.problems, TITLE)
    resolved = resolve_pairs(pairs or params.report.listening_pairs, selection)
    names = list(dict.fromkeys(name for pair in resolved for name in pair))
    material = _material(root, names, num_sentences or params.report.listening_sentences)
    texts = list(enumerate(material.texts))
    heard = [row for rows in material.rows.values() for row in rows.values() if _has_clip(row)]
    sounds = Sounds(_common_rate_hz([*heard, *material.references]))
    compared = [(n, text, pair) for pair in resolved for n, text in texts]
    half = texts[: -(-len(texts) // 2)]
    rated = [(n + 1, text, (name,)) for n, text in half for name in ("real", *names)]
    listed: dict[Kind, Trials] = {
        "ab": _trials(material, compared, sounds),
        "mos": _trials(material, rated, sounds),
    }
    raise_problems(sounds.problems, TITLE)
    pages: dict[Kind, KeyPage] = {}
    html: dict[str, str] = {}
    for kind, (trials, key_trials, unheard) in listed.items():
        definition = _definition(kind, params, trials, sounds)
        sha = fingerprint(definition, 64)
        pages[kind] = KeyPage(
            file=f"{kind}.html",
            page_sha=sha,
            questions=tuple(question["id"] for question in QUESTIONS[kind]),
            repeats=definition["repeats"],
            trials=key_trials,
            unheard=tuple(unheard),
        )
        html[f"{kind}.html"] = render(definition | {"page_sha": sha})
    key = ListeningKey(
        split=material.split,
        pairs=tuple(resolved),
        candidates=("real", *names),
        inputs={name: _rows_hash(material.rows[name].values()) for name in ("real", *names)},
        sample_rate_hz=sounds.rate_hz,
        level_dbfs=LEVEL_DBFS,
        pages=pages,
    )
    made = key.model_dump(mode="json", by_alias=True, exclude={"made"})
    if Path(out) != paths.LISTEN:  # the report's own pages follow its parameters
        _refuse_other(root / out, [*html, votes.KEY_FILE], made)
    for name, text in html.items():
        write_atomic(root / out / name, text)
    written = [root / out / name for name in html]
    write_json(root / out / votes.KEY_FILE, sealed(made, "listen", inputs=written))
    return key


def _refuse_other(out: Path, names: Sequence[str], key: Record) -> None:
    """Refuse a folder with files of others, or with pages whose votes this key could not read."""
    there = [name for name in names if (out / name).exists() or (out / name).is_symlink()]
    written = json_or_none(out / votes.KEY_FILE) or {}
    if there and {**written, "made": None} != {**key, "made": None}:
        raise user_error("listening.other_pages", f"--out {out}", found=", ".join(there))


def _has_clip(row: Record) -> bool:
    return bool(row["wav"]) and row["status"] == "ok"


def _rows_hash(rows: Iterable[Record]) -> str:
    return fingerprint([[row["text_id"], row["take"], row["wav_sha256"]] for row in rows], 64)


Trials = tuple[list[Record], dict[str, KeyTrial], list[Unheard]]


def _trials(
    material: Material, wanted: Iterable[tuple[int, str, tuple[str, ...]]], sounds: Sounds
) -> Trials:
    """Make a trial of each (number of its recording, sentence, candidates to compare or rate).

    Its clips are in the order of their ids, which are hashes and say nothing of whose they are.
    """
    trials, key, unheard = [], {}, []
    for index, text_id, names in wanted:
        rows = [row for name in names if (row := material.rows[name].get(text_id)) is not None]
        if not rows:  # a sentence that nobody has recorded
            continue
        take = rows[0]["take"]
        if missing := tuple(row["candidate"] for row in rows if not _has_clip(row)):
            unheard.append(Unheard(text_id=text_id, take=take, candidates=names, missing=missing))
            continue
        clips = {sounds.id_of(row): name for row, name in zip(rows, names, strict=True)}
        reference = sounds.id_of(material.reference(index, rows[0]))
        listed, name = sorted(clips), fingerprint(sorted(clips), 12)
        trials.append(
            {"id": name, "text": rows[0]["text"], "clips": listed, "reference": reference}
        )
        key[name] = KeyTrial(text_id=text_id, take=take, clips=clips)
    return trials, key, unheard


def _definition(kind: Kind, params: Params, trials: Sequence[Record], sounds: Sounds) -> Record:
    used = {item for trial in trials for item in (*trial["clips"], trial["reference"])}
    repeats = min(len(trials), max(MIN_REPEATED, round(SHARE_REPEATED * len(trials))))
    return {
        "kind": kind,
        "title": TITLES[kind],
        "lang": params.asr.language,
        "questions": QUESTIONS[kind],
        "trials": sorted(trials, key=lambda trial: trial["id"]),
        "repeats": repeats,
        "audio": {item: sounds.uris[item] for item in sorted(used)},
    }


def render(definition: Record) -> str:
    """Render a page: its policy allows its own script and style by their hashes, nothing else."""
    script = inline(TEMPLATES / "listen.js")
    style = inline(SHARED / "style.css", TEMPLATES / "listen.css")
    data = json.dumps(definition, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":  # nothing in a text can end the element
        data = data.replace(character, f"\\u{ord(character):04x}")
    count = len(definition["trials"]) + definition["repeats"]
    minutes = max(1, round(count * (25 if definition["kind"] == "ab" else 15) / 60))
    return new_environment(TEMPLATES).get_template("listen.html.j2").render(
        page=definition, num_trials=count, minutes=minutes, data=Markup(data), script=script,
        style=style,
    )  # fmt: skip


def write_votes(files: Sequence[str | Path], key_file: str | Path, confidence: float) -> Record:
    """Read exported votes, sum them up and write `votes.json` beside the key."""
    key = votes.read_key(key_file)
    summary = votes.summarise_votes(key, votes.read_votes(files, key), confidence)
    write_json(Path(key_file).parent / votes.VOTES_FILE, sealed(summary, "votes FILE …"))
    return summary
