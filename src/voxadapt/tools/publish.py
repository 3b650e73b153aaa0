"""Publishing an exported folder on the Hub, after a check that it is what export wrote."""

from pathlib import Path

import huggingface_hub as hub
from rich.filesize import decimal

from voxadapt import __version__
from voxadapt.core.errors import Problem, UserError, raise_problems
from voxadapt.core.files import sha256_file
from voxadapt.core.problems import problem, user_error
from voxadapt.core.records import Record
from voxadapt.core.stage import StageResult
from voxadapt.model.checkpoint import list_files
from voxadapt.tools.exported import CARD, FACTS, HUB_ID, describe_consent, read_facts

AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aiff", ".npz"}
MAX_FILE_BYTES = 50 * 10**9  # what the Hub takes as one file


def check_export(folder: Path) -> tuple[Record, list[str]]:
    """Check a folder before it is published; return its facts and its files, relative and sorted.

    The card may have been edited; every other file must be as it was exported, and nothing may
    have been added: a recording of the corpus, above all. All that is wrong is told at once.
    """
    facts = read_facts(folder)
    found = [file.as_posix() for file in list_files(folder)]
    problems = [wrong for name in found if (wrong := _file_problem(folder, name, facts))]
    missing = set(facts["files"]) - set(found) - {CARD}
    problems += [problem("tools.missing_file", name) for name in sorted(missing)]
    try:
        data = hub.ModelCard.load(folder / CARD).data.to_dict()
        if data.get("pipeline_tag") != "text-to-speech":
            raise ValueError("no pipeline_tag: text-to-speech")
    except Exception as error:  # yaml, the hub client's own checks, a file that is not there
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        problems.append(problem("tools.bad_card", CARD, found=reason))
    raise_problems(problems, f"{folder} is not published.")
    return facts, found


def _file_problem(folder: Path, name: str, facts: Record) -> Problem | None:
    """Say what forbids to publish a file; None when nothing does."""
    path = folder / name
    if path.suffix.lower() in AUDIO_SUFFIXES:
        return problem("tools.audio_file", name)
    if name not in facts["files"] and name != FACTS:
        return problem("tools.foreign_file", name)
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        most, found = decimal(MAX_FILE_BYTES), decimal(size)
        return problem("tools.large_file", name, most=most, found=found)
    if name not in (FACTS, CARD) and sha256_file(path) != facts["files"][name]["sha256"]:
        return problem("tools.changed_file", name)
    return None


def push(
    folder: Path, repo: str, *, private: bool = False, dry_run: bool = False,
    api: hub.HfApi | None = None,
) -> StageResult:  # fmt: skip
    """Publish an exported folder on the Hub with the ordinary client.

    The repository is made where there is none; a public one is refused for a private model.
    `dry_run` checks and lists, without the network.
    """
    if not HUB_ID.fullmatch(repo):
        raise user_error("tools.no_hub_id", "--repo", found=repr(repo))
    facts, files = check_export(folder)
    sizes = {name: (folder / name).stat().st_size for name in files}
    total = f"{len(files)} files, {decimal(sum(sizes.values()))}"
    notes = []
    if not describe_consent(facts)[0]:
        notes.append("Note: no consent of the speaker was recorded.")
    if facts["licence"]["model"] is None:
        notes.append("Note: the card states no licence.")
    if dry_run:
        head = f"{repo} ({'private' if private else 'public'}) would receive {total}:"
        lines = [f"  {decimal(size):>8}  {name}" for name, size in sizes.items()]
        return StageResult("\n".join([head, *lines, *notes]), files)
    token = hub.get_token()
    if token is None:
        raise user_error("tools.no_token", "the Hub")
    api = api or hub.HfApi(token=token, library_name="voxadapt", library_version=__version__)
    message = f"{facts['name']}: {facts['candidate']}, by VoxAdapt {__version__}"
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise user_error("tools.public_repository", repo)
        done = api.upload_folder(repo_id=repo, folder_path=str(folder), commit_message=message)
    except UserError:
        raise
    except Exception as error:  # the hub client raises a dozen unrelated types
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise user_error("tools.hub_refuses", repo, found=found) from None
    return StageResult("\n".join([f"{done}: {total}.", *notes]), files)
