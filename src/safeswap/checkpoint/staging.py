"""The folder that an output grows in, beside its final name, until it is whole.

A run that is killed leaves the folder; the same command finds it, checks what its journal claims,
and goes on. Another job in the same place starts afresh. A lock keeps two runs apart.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from safeswap.errors import OutputError
from safeswap.io.files import fsync_path, write_atomically
from safeswap.io.jsonfile import load_json
from safeswap.io.locks import HeldError, take_lock

_STATE = "job.json"
_JOURNAL = "journal"
_LOCK = "lock"
_REPLACED = "replaced"


class Staging:
    """``.NAME.safeswap-partial`` beside the output, with a journal of finished chunks.

    Attributes:
        job: what this run makes.
        folder: where the output's files grow (``folder / "out"``).
        finished: chunk → digest (hex) or ``"copy"``, as an earlier run left it.
    """

    def __init__(self, out: Path, job: str, *, replace: bool = False) -> None:
        """Take the staging folder of ``out`` for a job.

        Args:
            job: identifies inputs, plan and settings; another one's leftovers are removed.
            replace: what lies at OUT stays until `commit` and goes then.

        Raises:
            OutputError: OUT exists, the place cannot be written, or another run holds it.
        """
        self.out, self.job = out, job
        self._root = _root(out)
        self.folder = self._root / "out"
        self._held, self._replace = True, replace
        if not replace:
            refuse_existing(out)
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._root / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _not_writable(out.parent, error.strerror) from error
        try:
            take_lock(self._lock, self._root / _LOCK, OutputError, wait=False)
        except HeldError:
            os.close(self._lock)
            raise OutputError(
                f"{out}: another safeswap is writing it. Wait for it, or choose another --out."
            ) from None
        except OutputError:
            os.close(self._lock)
            raise
        if not self._still_ours():
            os.close(self._lock)
            raise OutputError(
                f"{out}: another safeswap has just finished it. Choose another --out."
            )
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            self.finished = self._earlier(job)
            self.folder.mkdir(exist_ok=True)
            self._state(job)
            self._journal = os.open(self._root / _JOURNAL, flags, 0o644)
        except OSError as error:
            os.close(self._lock)
            raise _not_writable(self._root, error.strerror) from error

    def _still_ours(self) -> bool:
        """Whether the lock still lies where it was opened: a run that finished between our opening
        and our locking took the folder away.
        """
        try:
            return os.path.samestat(os.fstat(self._lock), (self._root / _LOCK).stat())
        except OSError:
            return False

    def _earlier(self, job: str) -> Mapping[str, str]:
        try:
            same = load_json(self._root / _STATE)["job"] == job
            lines = (self._root / _JOURNAL).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError, KeyError, TypeError):
            same, lines = False, []
        if not same:
            shutil.rmtree(self.folder, ignore_errors=True)
            (self._root / _JOURNAL).unlink(missing_ok=True)
            return {}
        # only weights are worth resuming; a smaller file may be half written, or no longer wanted
        for file in list(self.folder.rglob("*")):
            if file.suffix != ".safetensors" and not file.is_dir():
                file.unlink()
        # a line that a kill cut short has no third field and is redone
        fields = [line.split("\t") for line in lines]
        return {one[0]: one[1] for one in fields if len(one) == 3}

    def _state(self, job: str) -> None:
        write_atomically(self._root / _STATE, json.dumps({"job": job}).encode())

    def note(self, chunk: str, digest: str) -> None:
        """Journal a finished chunk (one atomic append)."""
        try:
            os.write(self._journal, f"{chunk}\t{digest}\t.\n".encode())
        except OSError as error:
            raise OutputError(
                f"{self._root / _JOURNAL}: writing failed ({error.strerror}). Free some space and "
                "run the same command again: it goes on where it stopped."
            ) from error

    def release(self) -> None:
        """Let go of the folder and leave it for a resume; once more does nothing."""
        if self._held:
            self._held = False
            os.close(self._journal)
            os.close(self._lock)

    def discard(self) -> None:
        """Take the folder away: what grew in it is whole elsewhere."""
        self.release()
        shutil.rmtree(self._root, ignore_errors=True)

    def commit(self) -> None:
        """Give the whole output its final name, in one step, once all of it is on the disk.

        Raises:
            OutputError: something took that name meanwhile, or the disk fails.
        """
        if not self._replace:
            refuse_existing(self.out)
        for path in (*self.folder.rglob("*"), self.folder):
            if path.suffix != ".safetensors":  # these are on the disk already
                fsync_path(path)
        try:
            if self._replace and self.out.exists():  # a kill after this line leaves both, in here
                shutil.rmtree(self._root / _REPLACED, ignore_errors=True)
                self.out.replace(self._root / _REPLACED)
            self.folder.replace(self.out)
        except OSError as error:
            raise OutputError(
                f"{self.out}: cannot be created ({error.strerror}). Choose another --out; the same "
                "command goes on where this one stopped once the place is free."
            ) from error
        self.discard()
        fsync_path(self.out.parent)


def _root(out: Path) -> Path:
    return out.parent / f".{out.name}.safeswap-partial"


def check_place(out: Path, nbytes: int, *, replace: bool = False, option: str = "--out") -> None:
    """Refuse before any work when ``out`` cannot be made or has too little room; writes nothing.

    Args:
        nbytes: size of the whole output; what an interrupted run left of it needs no more room.
        replace: OUT may exist.
        option: what names another place.

    Raises:
        OutputError: OUT exists, its folder cannot be written, or how many bytes are needed and how
            many are available.
    """
    if not replace:
        refuse_existing(out)
    place = _root(out)
    try:
        while not place.exists():
            place = place.parent
        writable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
        held = sum(f.stat().st_blocks * 512 for f in _root(out).rglob("*") if f.is_file())
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise _not_writable(place, error.strerror, option) from error
    if not writable:
        reason = "Permission denied" if place.is_dir() else "Not a directory"
        raise _not_writable(place, reason, option)
    if free < nbytes - held:
        raise OutputError(
            f"{place}: {nbytes - held} bytes ({(nbytes - held) / 1e9:.2f} GB) are needed and only "
            f"{free} bytes ({free / 1e9:.2f} GB) are available. Free some space or choose another "
            f"{option}."
        )


def _not_writable(place: Path, reason: str | None, option: str = "--out") -> OutputError:
    return OutputError(
        f"{place}: cannot be written ({reason}). Choose another {option}, or fix the folder's "
        "permissions."
    )


def refuse_existing(out: Path) -> None:
    """An output never replaces anything.

    Raises:
        OutputError: the path exists and is not an empty folder.
    """
    try:
        taken = out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir())))
    except OSError as error:
        raise OutputError(
            f"{out}: cannot be looked at ({error.strerror}). Choose another --out."
        ) from error
    if taken:
        raise OutputError(f"{out}: exists already. Choose another --out, or remove it first.")
