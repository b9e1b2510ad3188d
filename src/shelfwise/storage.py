"""Writing that is whole or not at all, and folders whose files are hashed and checked on load."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from shelfwise.errors import COPY_AGAIN, CorruptArtifactError, InputError, RunFolderError, StorageError

FORMAT = 1
MANIFEST = "manifest.json"


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals while writing `target` into a StorageError that says what to do."""
    try:
        yield
    except FileNotFoundError:
        raise  # something to be read was missing; that is not the disk's fault
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = "the disk is full. Free some space, or choose another place"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            what = "no permission to write there. Choose another place"
        else:
            what = f"writing failed ({error.strerror or error})"
        raise StorageError(f"{target}: {what}; nothing half-written was left under this name.") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(target: Path, mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """Open a file that appears under its name only when it is whole and on disk.

    Args:
        target: the final path; its folder is made when missing.
        mode: "w" (UTF-8 text) or "wb".
        options: passed on to `open`, as in ``newline=""``.

    Raises:
        StorageError: the disk refused; what stood under the name before is untouched.
    """
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    staging = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(staging, mode, **options) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(staging, target)
            _sync(target.parent)
        finally:
            staging.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Fill a folder that appears under its name only when it is whole and on disk; replaces what stood there.

    Yields:
        The staging folder beside `target`, to be filled.

    Raises:
        StorageError: the disk refused; what stood under the name before is untouched.
    """
    staging = target.with_name(f".{target.name}.{os.getpid()}.partial")
    retired = target.with_name(f".{target.name}.{os.getpid()}.old")
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
            for path in sorted(staging.rglob("*")):
                _sync(path)
            _sync(staging)
            if target.exists():
                os.replace(target, retired)
            os.replace(staging, target)
            _sync(target.parent)
        except StorageError as error:  # of a file in the folder: the name that users know is the target's
            raise StorageError(str(error).replace(str(staging), str(target))) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            if not target.exists() and retired.exists():
                os.replace(retired, target)
            shutil.rmtree(retired, ignore_errors=True)


def require_new(target: Path, *, force: bool) -> None:
    """Refuse to write over a file that is already there, unless the caller said `force`.

    Raises:
        InputError: there is such a file.
    """
    if target.exists() and not force:
        raise InputError(f"{target}: there already is such a file. Choose another name, or overwrite with --force.")


def write_text(target: Path, text: str) -> None:
    """Write a whole text file, or nothing."""
    with atomic_file(target) as stream:
        stream.write(text)


def write_json(target: Path, document: object) -> None:
    """Write a whole JSON file, or nothing. NaN is refused: it is no JSON."""
    write_text(target, json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_manifest(folder: Path, facts: dict[str, object], *, apart: Sequence[str] = ()) -> None:
    """Write the manifest of a folder: `facts` and the hash of every other file. Always the last file written.

    Args:
        folder: the folder, otherwise complete.
        facts: what else the manifest says.
        apart: entries of the folder that are left out, for they may change or have manifests of their own.
    """
    files = {
        path.relative_to(folder).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in (*apart, MANIFEST)
    }
    write_json(folder / MANIFEST, {"format": FORMAT, **facts, "files": files})


def read_manifest(folder: Path, *, verify: bool = True, apart: Sequence[str] = ()) -> dict[str, Any]:
    """Read a folder's manifest, and check every file it lists.

    Args:
        folder: a run folder or a checkpoint.
        verify: also compare each file's hash; without it only the presence and size are checked.
        apart: entries of the folder that are not checked even where the manifest lists them.

    Raises:
        RunFolderError: no manifest, or one of a newer format.
        CorruptArtifactError: a file is missing or changed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        what = "there is no such folder" if not folder.exists() else f"there is no {MANIFEST} in it"
        raise RunFolderError(f"{folder}: not complete: {what}.")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = int(manifest["format"])
        files = {name: (int(found["bytes"]), str(found["sha256"])) for name, found in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptArtifactError(f"{path}: not a readable manifest ({error}). {COPY_AGAIN}") from error
    if version > FORMAT:
        raise RunFolderError(
            f"{folder}: written by a newer Shelfwise (format {version}, this one reads {FORMAT}). Update Shelfwise."
        )
    for name, (size, digest) in files.items():
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            raise CorruptArtifactError(f"{path}: lists '{name}', which lies outside the folder. {COPY_AGAIN}")
        if Path(name).parts[:1] and Path(name).parts[0] in apart:
            continue
        if not file.is_file() or file.stat().st_size != size:
            raise CorruptArtifactError(f"{file}: missing or of another size than recorded. {COPY_AGAIN}")
        if verify and sha256(file) != digest:
            raise CorruptArtifactError(f"{file}: changed since it was written. {COPY_AGAIN}")
    return manifest
