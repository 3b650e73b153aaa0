"""Publishing an exported folder on the Hub, after a check that it is what export wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from voxadapt import __version__
from voxadapt.core.errors import Problem, UserError, raise_problems
from voxadapt.core.files import sha256_file
from voxadapt.core.records import Record
from voxadapt.core.stage import StageResult
from voxadapt.tools.exported import CARD, FACTS, HUB_ID, describe_consent, read_facts, size_in_words

if TYPE_CHECKING:
    from huggingface_hub import HfApi

AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aiff", ".npz"}
AGAIN = "Export it again."
NOTHING = "Nothing was published."
MAX_FILE_BYTES = 50 * 10**9  # what the Hub takes as one file


def check_export(folder: Path) -> tuple[Record, list[str]]:
    """Check a folder before it is published; return its facts and its files, relative and sorted.

    The card may have been edited; every other file must be as it was exported, and nothing may
    have been added: a recording of the corpus, above all.

    Raises:
        UserError: With everything that is wrong.
    """
    from huggingface_hub import ModelCard

    from voxadapt.model.checkpoint import list_files

    facts = read_facts(folder)
    found = [file.as_posix() for file in list_files(folder)]
    problems = [problem for name in found if (problem := _file_problem(folder, name, facts))]
    for name in sorted(set(facts["files"]) - set(found) - {CARD}):
        problems.append(Problem(name, "a file of the export", "nothing", AGAIN))
    try:
        data = ModelCard.load(folder / CARD).data.to_dict()
        if data.get("pipeline_tag") != "text-to-speech":
            raise ValueError("no pipeline_tag: text-to-speech")
    except Exception as error:  # yaml, the hub client's own checks, a file that is not there
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        problems.append(Problem(CARD, "a model card with its metadata", reason, AGAIN))
    raise_problems(problems, f"{folder} is not published.")
    return facts, found


def _file_problem(folder: Path, name: str, facts: Record) -> Problem | None:
    """Say what forbids to publish a file; None when nothing does."""
    path = folder / name
    if path.suffix.lower() in AUDIO_SUFFIXES:
        fix = "Take it out: recordings of the corpus are not part of a model."
        return Problem(name, "no audio and no voice embedding", "a file of that kind", fix)
    if name not in facts["files"] and name != FACTS:
        return Problem(name, "only files that export wrote", "another one", "Take it out.")
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        return Problem(name, f"at most {size_in_words(MAX_FILE_BYTES)}", size_in_words(size),
                       "Publish a delta, or the model in several files.")  # fmt: skip
    if name not in (FACTS, CARD) and sha256_file(path) != facts["files"][name]["sha256"]:
        return Problem(name, "the file as it was exported", "another one", AGAIN)
    return None


def push(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    api: HfApi | None = None,
) -> StageResult:
    """Publish an exported folder on the Hub with the ordinary client.

    The repository is made where there is none; a public one is refused for a private model.
    `dry_run` checks and lists, without the network.

    Raises:
        UserError: When the folder is not fit, no token is there, or the Hub refuses.
    """
    from huggingface_hub import HfApi, get_token

    if not HUB_ID.fullmatch(repo):
        raise UserError.of("--repo", "owner/name", repr(repo), "Correct it.")
    facts, files = check_export(folder)
    sizes = {name: (folder / name).stat().st_size for name in files}
    total = f"{len(files)} files, {size_in_words(sum(sizes.values()))}"
    notes = []
    if not describe_consent(facts)[0]:
        notes.append("Note: no consent of the speaker was recorded.")
    if facts["licence"]["model"] is None:
        notes.append("Note: the card states no licence.")
    if dry_run:
        head = f"{repo} ({'private' if private else 'public'}) would receive {total}:"
        lines = [f"  {size_in_words(size):>8}  {name}" for name, size in sizes.items()]
        return StageResult("\n".join([head, *lines, *notes]), files)
    token = get_token()
    if token is None:
        raise UserError.of(
            "the Hub", "a token that may write", "none",
            "Make one at https://huggingface.co/settings/tokens and set HF_TOKEN, or run "
            "`hf auth login`. --dry-run needs none.", NOTHING,
        )  # fmt: skip
    api = api or HfApi(token=token, library_name="voxadapt", library_version=__version__)
    message = f"{facts['name']}: {facts['candidate']}, by VoxAdapt {__version__}"
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise UserError.of(
                repo, "a private repository", "a public one",
                "Choose another name, or change its settings on the Hub.", NOTHING,
            )  # fmt: skip
        done = api.upload_folder(repo_id=repo, folder_path=str(folder), commit_message=message)
    except UserError:
        raise
    except Exception as error:  # the hub client raises a dozen unrelated types
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        fix = "Check the name, the token's rights and the network; run it again to go on."
        title = "The folder was not published, or not wholly."
        raise UserError.of(repo, "a repository that takes the files", reason, fix, title) from None
    return StageResult("\n".join([f"{done}: {total}.", *notes]), files)
