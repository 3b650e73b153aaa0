"""Files that are written whole or not at all, and hashes of their contents."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxadapt.core import paths
from voxadapt.core.errors import explain_storage

if TYPE_CHECKING:
    from numpy.typing import NDArray

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


LARGE_BYTES = 4_000_000  # from here on a hash is kept: less is read in a few milliseconds


#: What reading an archive of arrays raises that is absent, cut short or another's.
TORN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def sha256_bytes(data: bytes) -> str:
    """Return the hexadecimal sha256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Return the hexadecimal sha256 of a file, read in blocks."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cached_sha256(path: str | Path) -> str:
    """Return the sha256 of a file; a large one that was not touched since is not read again.

    What was found is kept in the work folder, with size, times and place of the file. The time of
    the last change of a file's entry cannot be set by hand as that of its contents can.
    """
    stat = os.stat(path)
    if stat.st_size < LARGE_BYTES:
        return sha256_file(path)
    now = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]
    known = paths.work_dir() / "hashes" / f"{sha256_bytes(os.path.abspath(path).encode())}.json"
    kept = json_or_none(known) or {}
    if kept.get("file") == now and "sha256" in kept:
        return str(kept["sha256"])
    digest = sha256_file(path)
    write_json(known, {"file": now, "sha256": digest})
    return digest


def sha256_folder(path: str | Path) -> str:
    """Hash a folder by the relative names and contents of its files, in a fixed order."""
    root = Path(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in root.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(root).as_posix()}\0{cached_sha256(file)}\n".encode())
    return digest.hexdigest()


def sha256_array(array: NDArray[Any]) -> str:
    """Hash an array's type, shape and bytes."""
    header = f"{array.dtype.str}{array.shape}".encode()
    return sha256_bytes(header + array.tobytes())


def first_by_hash(texts: Iterable[str], limit: int | None = None) -> list[str]:
    """Sort texts by their hash and take the first: a fixed sample that nobody has picked.

    Each text counts once; without a limit all are returned.
    """
    return sorted(set(texts), key=lambda text: sha256_bytes(text.encode()))[:limit]


def write_atomic(path: str | Path, data: str | bytes) -> None:
    """Write a file whole or not at all; raises `UserError` where the disk does not take it."""
    with replacing(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file that takes the place of `path` when the block ends well.

    The file and its folder reach the disk before this returns. The temporary file has a fixed
    name, so that what a killed process left is overwritten by the next one, and is locked, so
    that two processes that write the same file do so one after the other.

    Raises:
        UserError: When the disk is full, read-only or faulty.
    """
    path = Path(path)
    with explain_storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part, lock = _claim(path)
        try:
            mode = part.stat().st_mode & 0o666  # what the user's umask leaves
            yield part
            sync(part)
            os.chmod(part, mode)
            os.replace(part, path)
            sync(path.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            if lock is not None:
                os.close(lock)


def _claim(path: Path) -> tuple[Path, int | None]:
    """Return the temporary file for a path, empty, and the lock that is held on it, if any."""
    while fcntl is not None:
        part = path.with_name(f".{path.name}.part")
        lock = os.open(part, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            os.close(lock)
            part.unlink(missing_ok=True)
            break
        with suppress(FileNotFoundError):  # whoever held it has renamed or removed it meanwhile
            if os.stat(part).st_ino == os.fstat(lock).st_ino:
                os.ftruncate(lock, 0)
                return part, lock
        os.close(lock)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(b"")
    return part, None


def set_aside(path: str | Path, to: str | Path) -> None:
    """Move a file or folder; what an earlier call has put there is replaced."""
    to = Path(to)
    if to.is_dir():
        shutil.rmtree(to)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, to)


def link_or_copy(source: Path, target: Path) -> None:
    """Link a file, or copy it to another file system, or to one without links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def set_usual_mode(path: Path) -> None:
    """Give a file or folder, which a library made for its owner alone, what the umask leaves."""
    mask = os.umask(0o077)
    os.umask(mask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def sync(path: str | Path) -> None:
    """Have a file or a folder reach the disk before this returns."""
    folder = Path(path).is_dir()
    if os.name == "nt" and folder:
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if not (folder and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise  # some file systems sync no folders
    finally:
        os.close(handle)


def write_json(path: str | Path, value: object) -> None:
    """Write JSON with sorted keys and a closing newline, so that equal values give equal bytes."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file in UTF-8."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def json_or_none(path: str | Path, schema: str | None = None) -> dict[str, Any] | None:
    """Read a JSON object; None where it is absent, torn, or of another `schema`."""
    try:
        found = read_json(path)
    except (OSError, ValueError, RecursionError):
        return None
    fits = isinstance(found, dict) and schema in (None, found.get("schema"))
    return found if fits else None


def write_csv(
    path: str | Path, rows: Iterable[Iterable[object]], line_end: str = "\n", mark: str = ""
) -> None:
    """Write rows of cells, the first of them the header, after a byte order `mark`."""
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator=line_end).writerows(rows)
    write_atomic(path, mark + stream.getvalue())


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object a line; one row at a time is in memory."""
    with replacing(path) as part, open(part, "w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """Read a JSONL file that a stage wrote."""
    with open(path, encoding="utf-8", newline="\n") as stream:
        return [json.loads(line) for line in stream if line.strip()]
