"""What a stage wrote, and from what: so that nothing edited since goes unseen.

A stage ends with a `made` record: the hash of every file that it wrote, of the records of the
stages before it, and the parameters that shaped the result. It lies beside the files (`made.json`)
or is a key of the stage's own record (`selection.json`), and is sealed with a hash of itself.
Whoever reads the files holds them to it first. This finds mistakes, mixed runs and damage; it is
no protection against somebody who makes the records anew.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from voxadapt.core.errors import Problem, raise_problems, reason
from voxadapt.core.files import cached_sha256, read_json, write_json
from voxadapt.core.problems import problem
from voxadapt.core.provenance import fingerprint
from voxadapt.core.records import Record

MADE = "made.json"
SCHEMA = "voxadapt-made/1"
TITLE = "What was written before does not fit together."
#: Parameters that shape what a candidate says and how it is scored.
SPEAKING = (
    "model.base", "model.revision", "model.speaker_encoder", "score", "asr.model", "asr.language",
    "asr.substitutions", "train.language", "train.speaker_name", "data.ref_text",
)  # fmt: skip
#: The same of a language's candidates.
SPEAKING_LANGUAGE = (
    "model.base", "model.revision", "score", "asr.model", "asr.substitutions", "language.name",
    "language.asr_language", "language.ref_text", "language.source",
)  # fmt: skip


def sealed(
    record: Record,
    command: str,
    files: Iterable[Path] = (),
    inputs: Iterable[Path] = (),
    params: BaseModel | None = None,
    keys: Sequence[str] = (),
) -> Record:
    """Return a record with what it was made from, and its seal.

    `command` is the `voxadapt` command that makes it again; `files` are those that the stage wrote
    besides, or folders of them; `inputs` are the records with seals that it read; `keys` name the
    sections or keys of `params` that shaped the result, such as `score` or `asr.model`.
    """
    values = {} if params is None else _values(params)
    made: Record = {
        "schema": SCHEMA,
        "command": command,
        "files": {path.as_posix(): cached_sha256(path) for path in _files(files)},
        "from": {path.as_posix(): cached_sha256(path) for path in inputs},
        "params": {
            name: value
            for name, value in values.items()
            if any(name == key or name.startswith(f"{key}.") for key in keys)
        },
    }
    whole = record | {"made": made}
    return record | {"made": made | {"seal": _seal(whole)}}


def write_made(
    path: Path,
    command: str,
    files: Iterable[Path],
    inputs: Iterable[Path] = (),
    params: BaseModel | None = None,
    keys: Sequence[str] = (),
) -> None:
    """Write the `made.json` of a stage that leaves a folder; arguments as of `sealed`."""
    path.unlink(missing_ok=True)
    write_json(path, sealed({}, command, files, inputs, params, keys))


def check_made(
    paths: Iterable[Path], params: BaseModel | None = None, within: Path | None = None
) -> None:
    """Refuse files that are not those that their stages wrote, or that do not fit each other.

    `params` are held to those that the records were made with; `within` hashes the files below a
    folder alone.
    """
    found = [fault for path in paths for fault in faults(path, params, within)]
    raise_problems(list(dict.fromkeys(found)), TITLE)


def faults(
    path: Path, params: BaseModel | None = None, within: Path | None = None, strict: bool = False
) -> Iterator[Problem]:
    """Yield what does not fit a record with a seal; arguments as of `check_made`.

    `strict` misses inputs that are not there, which need not all be on this machine, and refuses
    files that were added; without it, those below `within` alone.
    """
    try:
        record = read_json(path)
        made = record["made"]
        seal, command, files, inputs = (made[key] for key in ("seal", "command", "files", "from"))
        texts = [seal, command, *files, *files.values(), *inputs, *inputs.values()]
        if made["schema"] != SCHEMA or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"schema {made['schema']!r}")
        own = path.parent if path.name == MADE else None
        if own and files and not any(Path(name).is_relative_to(own) for name in files):
            raise ValueError("the record of another folder")
        values = dict(made["params"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        nothing = isinstance(error, FileNotFoundError)
        found = "nothing" if nothing else f"no such record ({type(error).__name__})"
        yield problem("core.no_made", path.as_posix(), found=found)
        return
    facts = {"made": path.as_posix(), "command": command}
    if _seal(record) != seal:
        yield problem("core.changed_record", path.as_posix(), command=command)
        return
    fix = f"Run `voxadapt {command}` again."
    if command.endswith(("train", "stage1", "stage2")):
        fix = f"Restore it (`dvc checkout {path.parent.as_posix()}`), or train again."
    for name, sha in files.items():
        if within is None or Path(name).is_relative_to(within):
            if change := _change(name, sha):
                yield problem("core.changed_file", name, command=command, found=change, fix=fix)
    scope = own if strict else within
    if own is not None and scope is not None and scope.is_relative_to(own):
        for added in (file for file in _files([scope]) if file.as_posix() not in files):
            yield problem("core.added_file", added.as_posix(), command=command)
    for name, sha in inputs.items():
        if strict or Path(name).exists():
            if change := _change(name, sha):
                yield problem("core.changed_input", name, found=change, **facts)
    if params is not None:
        now = _values(params)
        for name, value in values.items():
            if now.get(name) != value:
                both = {"before": _shown(value), "now": _shown(now.get(name))}
                yield problem("core.changed_parameter", f"params.yaml: {name}", **both, **facts)


def _change(name: str, sha: str) -> str | None:
    """Say what became of a file; None where it is as it was."""
    try:
        return None if cached_sha256(name) == sha else "something that was changed since"
    except OSError as error:
        return reason(error)


def _files(paths: Iterable[Path]) -> list[Path]:
    """List files, and those below folders; nothing hidden, and no record of what was made."""
    found: set[Path] = set()
    for path in paths:
        found |= {p for p in path.rglob("*") if p.is_file()} if path.is_dir() else {path}
    return sorted(path for path in found if path.name != MADE and path.name[0] != ".")


def _values(section: BaseModel, prefix: str = "") -> Record:
    """Flatten parameters to dotted keys, those too that a dump leaves out where they are off."""
    found: Record = {}
    for name, value in section:
        if isinstance(value, BaseModel):
            found |= _values(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = to_jsonable_python(value)
    return found


def _seal(record: Record) -> str:
    made = {key: value for key, value in record["made"].items() if key != "seal"}
    return fingerprint(record | {"made": made}, 64)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
