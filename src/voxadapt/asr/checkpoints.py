"""What people call a Whisper checkpoint, as the name or path that it is loaded by."""

import re
from collections.abc import Collection
from pathlib import Path

_HUB = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://|hf:", re.IGNORECASE)
_PAGE = re.compile(r"/(?:tree|blob|resolve)/.*$")


def canonical(model: str, known: Collection[str]) -> str:
    """Return one of the `known` names, a hub id, or a path, of what is written for a checkpoint.

    `Large-V3` and `whisper-large-v3` are `large-v3`; a page of the hub is its id; a folder of the
    hub's cache is its snapshot; a file of a folder in Hugging Face form is the folder.
    """
    model = model.strip()
    if on_hub := _HUB.match(model):
        return _PAGE.sub("", model[on_hub.end() :]).strip("/")
    path = Path(model).expanduser()
    if not path.exists():
        name = re.sub(r"^whisper[-_: ]|\.pt$", "", model.casefold()).replace("_", "-")
        return name if name in known else model if "~" not in model else str(path)
    if path.is_file() and path.suffix in (".json", ".safetensors", ".bin"):
        return str(path.parent if (path.parent / "config.json").is_file() else path)
    if (path / "snapshots").is_dir() and not (path / "config.json").is_file():
        main, snapshots = path / "refs" / "main", sorted((path / "snapshots").iterdir())
        chosen = path / "snapshots" / main.read_text().strip() if main.is_file() else None
        if chosen is None or not chosen.is_dir():
            chosen = snapshots[0] if len(snapshots) == 1 else path
        return str(chosen)
    return str(path)
