"""Where a result comes from: fingerprints, versions, commit."""

import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TypedDict

from voxadapt.core.files import sha256_bytes

PACKAGES = (
    "voxadapt", "torch", "transformers", "qwen-tts", "openai-whisper", "Resemblyzer", "librosa",
    "soundfile", "numpy", "jiwer", "dvc", "papermill",
)  # fmt: skip


class Commit(TypedDict):
    """The commit of a project, and whether its files differ from it."""

    commit: str
    modified: bool


def fingerprint(value: object, length: int = 16) -> str:
    """Hash a JSON-like value, independent of key order.

    `length` characters of the hash are kept.
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return sha256_bytes(text.encode())[:length]


def versions() -> dict[str, str]:
    """Return the versions of python and of the packages that shape a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def git(*arguments: str, root: str | Path = ".") -> str:
    """Return what git says of a project; nothing where it cannot."""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def git_commit() -> Commit:
    """Return the commit of the project folder and whether its files differ from it."""
    changed = git("status", "--porcelain", "--", "src", "notebooks", "params.yaml", "dvc.yaml")
    commit = git("rev-parse", "HEAD").strip()
    return {"commit": commit or "unknown", "modified": bool(changed.strip())}
