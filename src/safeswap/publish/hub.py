"""A repository of a hub: files are sent one after the other, and one commit shows all of them.

The hub keeps what was sent without a commit for a while, and says of each file whether it has it
already, by its digest. So a run that was killed, or failed, goes on with what is missing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha1
from typing import Any, TypeVar

from safeswap.errors import OutputError, SafeswapError, listed
from safeswap.io.address import split_login
from safeswap.io.progress import shown_bytes
from safeswap.merge.companions import MANIFEST
from safeswap.publish.address import HubRepo
from safeswap.publish.hub_errors import in_hub_words, is_passing, status_of
from safeswap.publish.private import Published

_log = logging.getLogger("safeswap.publish")
Answer = TypeVar("Answer")
_PAUSES = (1.0, 4.0, 16.0)
"""Seconds before a request is tried again that the client itself does not try again."""
_GITS_OWN = (".gitattributes", ".gitignore", "README.md")
"""What a new repository may hold, made by the hub's page."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a user asked of a repository.

    Attributes:
        repo: ``ORG/NAME``.
        public: everybody may read it; else a new one is private.
        revision: a branch, made when missing; None for the main one.
        message: of the commit.
        overwrite: files of an earlier merge that the new one lacks are removed.
    """

    repo: HubRepo
    public: bool = False
    revision: str | None = None
    message: str | None = None
    overwrite: bool = False


def refuse_offline(repo: HubRepo) -> None:
    """Publishing needs the network, and a token.

    Raises:
        OutputError: HF_HUB_OFFLINE is set, or there is no token.
    """
    from huggingface_hub import constants, get_token

    if constants.is_offline_mode():
        raise OutputError(
            f"{repo}: HF_HUB_OFFLINE is set, so nothing is sent to a hub. Unset it, and run the "
            "same command again."
        )
    if not get_token() and not split_login(constants.ENDPOINT)[1]:
        raise OutputError(
            f"{repo}: there is no token for the hub. Log in (hf auth login), or set HF_TOKEN to a "
            "token with the right to write."
        )


class HubPush:
    """A repository that an output is sent to.

    Args:
        wanted: what was asked for.

    Raises:
        OutputError: offline, no token.
    """

    def __init__(self, wanted: Wanted) -> None:
        from huggingface_hub import HfApi, constants, get_token

        refuse_offline(wanted.repo)
        self._wanted, self._lacks_xet = wanted, False
        self.endpoint, login = split_login(constants.ENDPOINT)
        self._secrets = tuple(one for one in (get_token(), login) if one)
        # False: no token, where None would take the user's own in place of the login
        headers = {"authorization": login} if login else None
        self._api = HfApi(endpoint=self.endpoint, token=False if login else None, headers=headers)

    @property
    def _name(self) -> str:
        return self._wanted.repo.name

    def prepare(self) -> list[str]:
        """Make the repository and its branch where they are missing; says what is to be known.

        Raises:
            OutputError: no right to, or one that everybody reads while a private one was asked for.
        """
        return self._asked(self._prepare)

    def _prepare(self) -> list[str]:
        wanted, said = self._wanted, list[str]()
        info = self._info(None)
        if info is None:
            self._tried(
                lambda: self._api.create_repo(self._name, private=not wanted.public, exist_ok=True)
            )
            info = self._info(None)
            said.append(f"made {'public' if wanted.public else 'private'} repository")
        private = bool(getattr(info, "private", False))
        if not private and not wanted.public:
            raise OutputError(
                f"{self._name}: is public, and so would be what is pushed; private is what is "
                "asked for unless --public is. Nothing was sent. Add --public, make the "
                "repository private in its settings, or name another."
            )
        if private and wanted.public:
            said.append(
                "the repository was made private before and stays so: --public is for "
                "new ones; its settings on the hub change it"
            )
        if wanted.revision and wanted.revision != "main":
            name = wanted.revision
            self._tried(lambda: self._api.create_branch(self._name, branch=name, exist_ok=True))
        return said

    def send(self, found: Published, tell: Callable[[str], None]) -> str:
        """Send what is missing, and show all in one commit; the commit's id.

        Args:
            tell: told of each file that was sent.

        Raises:
            OutputError: it cannot be sent, or other files are there.
        """
        return self._asked(partial(self._send, found, tell))

    def _send(self, found: Published, tell: Callable[[str], None]) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        head = self._info(self._wanted.revision)
        there = _files(head)
        removed = self._stale(found, there)
        operations: list[Any] = []
        for number, (name, size) in enumerate(found.sizes.items(), 1):
            given = found.made.get(name) or str(found.paths[name])
            operation = CommitOperationAdd(path_in_repo=name, path_or_fileobj=given)
            self._tried(partial(self._preupload, operation))
            operations.append(operation)
            tell(f"{name}: {shown_bytes(size)} ({number} of {len(found.sizes)})")
        digests = _git_digests(found)
        wanted = {o.path_in_repo: (o.upload_info, digests[o.path_in_repo]) for o in operations}
        if _holds(there, wanted, removed):
            return str(head.sha)  # as it is there already: no commit that changes nothing
        changes = [*operations, *(CommitOperationDelete(path_in_repo=name) for name in removed)]
        return self._commit(changes, lambda now: _holds(now, wanted, removed), head)

    def _preupload(self, operation: Any) -> None:
        """Send a file, through Xet storage where the hub has it; others know plain LFS."""
        from huggingface_hub import constants

        def send() -> None:
            self._api.preupload_lfs_files(
                self._name,
                [operation],
                revision=self._wanted.revision,
                free_memory=False,
                gitignore_content="",
            )

        if not self._lacks_xet:
            try:
                return send()
            except Exception as error:
                self._lacks_xet = _lacks_xet(error)
                if not self._lacks_xet:
                    raise
        before, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
        try:
            send()
        finally:
            constants.HF_HUB_DISABLE_XET = before

    def _stale(self, found: Published, there: Mapping[str, Any]) -> list[str]:
        """The files of an earlier merge that this one lacks."""
        foreign = [name for name in there if name not in _GITS_OWN and name not in found.sizes]
        if MANIFEST not in there and [n for n in there if n not in _GITS_OWN]:
            raise OutputError(
                f"{self._name}: holds files that no merge wrote ({listed(there)}; there is no "
                f"{MANIFEST}). Nothing was shown. Name another repository, or another --revision."
            )
        if foreign and not self._wanted.overwrite:
            raise OutputError(
                f"{self._name}: holds files that this merge does not ({listed(foreign)}). Nothing "
                "was sent. Add --overwrite to remove them in the same commit, or name another "
                "--revision."
            )
        return foreign

    def _commit(
        self, changes: list[Any], is_done: Callable[[Mapping[str, Any]], bool], head: Any
    ) -> str:
        """One commit for all. Where an answer was lost, the hub is asked whether it has it.

        Args:
            is_done: whether what a repository shows is what is wanted.
        """
        message = self._wanted.message or "Merged with safeswap"
        for pause in (*_PAUSES, None):
            try:
                made = self._api.create_commit(
                    self._name,
                    changes,
                    commit_message=message,
                    revision=self._wanted.revision,
                    parent_commit=head.sha,
                )
                return str(made.oid)
            except Exception as error:
                now = self._info(self._wanted.revision)
                if now is not None and now.sha != head.sha and is_done(_files(now)):
                    return str(now.sha)
                if pause is None or not is_passing(error):
                    raise
                self._pause(error, pause)
        raise AssertionError("the last try returns or raises")

    def check(self, found: Published, commit: str) -> None:
        """Ask the hub what it shows now: all names, sizes, and digests of the large files.

        Raises:
            OutputError: names what differs.
        """
        from huggingface_hub.lfs import UploadInfo

        there = _files(self._asked(partial(self._info, commit)))
        wrong = []
        for name, digest in _git_digests(found).items():
            raw = found.made.get(name)
            info = UploadInfo.from_bytes(raw) if raw is not None else None
            info = info or UploadInfo.from_path(str(found.paths[name]))
            if not _is(there.get(name), info, digest):
                wrong.append(name)
        if wrong:
            raise OutputError(
                f"{self._name}: shows other bytes than were sent for {listed(wrong)}. Run the same "
                "command again; where it stays so, ask the hub's operators."
            )

    def url(self, commit: str) -> str:
        """Where people look at it."""
        branch = self._wanted.revision
        return f"{self.endpoint}/{self._name}" + (f"/tree/{branch}" if branch else "")

    def licenses(self, names: Mapping[str, str]) -> dict[str, str | None]:
        """Hub id → its licence, as the hub knows it; None where it does not say.

        Args:
            names: hub id → commit.
        """
        found: dict[str, str | None] = {}
        for name, revision in names.items():
            found[name] = None
            try:
                ask = partial(self._api.model_info, name, revision=revision)
                data: Any = self._asked(ask).card_data
                said = data.license if data is not None else None
                found[name] = said if isinstance(said, str) else None
            except SafeswapError as error:
                _log.debug(f"licence of {name}: not known ({error})")
        return found

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        with _quiet():
            return in_hub_words(self._name, self._secrets, ask)

    def _info(self, revision: str | None) -> Any:
        """What the hub says of the repository; None where it is not there."""
        from huggingface_hub.errors import RepositoryNotFoundError

        def ask() -> Any:
            return self._api.model_info(self._name, revision=revision, files_metadata=True)

        try:
            return self._tried(ask)
        except RepositoryNotFoundError as error:
            if status_of(error) == 401 and "Invalid" in str(error):
                raise
            return None

    def _tried(self, ask: Callable[[], Answer]) -> Answer:
        """Ask again after a while where that may help."""
        for pause in _PAUSES:
            try:
                return ask()
            except Exception as error:
                if not is_passing(error):
                    raise
                self._pause(error, pause)
        return ask()

    def _pause(self, error: Exception, seconds: float) -> None:
        said = status_of(error) or type(error).__name__
        _log.debug(f"{self._name}: the hub failed ({said}); asked again in {seconds:g} s")
        time.sleep(seconds)


def _files(info: Any) -> dict[str, Any]:
    return {one.rfilename: one for one in (getattr(info, "siblings", None) or ())}


def _lacks_xet(error: Exception) -> bool:
    """Whether a hub of somebody's own has no Xet storage: nobody there gives a token for it."""
    return "xet-write-token" in str(error) and "404" in str(error)


_SMALL = 1 << 24
"""Bytes up to which a file may be one of git's own, known by git's digest."""


def _git_digests(found: Published) -> dict[str, str | None]:
    """Name → what git calls a file's content; None for large ones, which are known by SHA-256."""
    digests: dict[str, str | None] = {}
    for name, size in found.sizes.items():
        digests[name] = None
        if size <= _SMALL:
            raw = found.made[name] if name in found.made else found.paths[name].read_bytes()
            digests[name] = sha1(b"blob %d\0" % size + raw, usedforsecurity=False).hexdigest()
    return digests


def _holds(
    there: Mapping[str, Any], wanted: Mapping[str, tuple[Any, str | None]], removed: Sequence[str]
) -> bool:
    """Whether a repository shows all that was wanted."""
    same = all(_is(there.get(name), *known) for name, known in wanted.items())
    return same and not {*removed} & {*there}


def _is(shown: Any, info: Any, digest: str | None) -> bool:
    """Whether a file that is shown has these bytes: by SHA-256, or git's digest of small ones."""
    if shown is None or (shown.size is not None and shown.size != info.size):
        return False
    lfs = getattr(shown, "lfs", None)
    if lfs is not None:
        return bool(lfs.sha256 == info.sha256.hex())
    return shown.blob_id is None or digest is None or shown.blob_id == digest


_TALKATIVE = ("huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2")


@contextmanager
def _quiet() -> Iterator[None]:
    """The client's own bars are off, and what it and its transport log of requests: addresses that
    are signed, and headers.
    """
    from huggingface_hub import utils

    bars: Any = utils
    shown = not bars.are_progress_bars_disabled()
    logs = {name: logging.getLogger(name) for name in _TALKATIVE}
    before = {name: log.level for name, log in logs.items()}
    for log in logs.values():
        log.setLevel(logging.ERROR)
    if shown:
        bars.disable_progress_bars()
    try:
        yield
    finally:
        for name, log in logs.items():
            log.setLevel(before[name])
        if shown:
            bars.enable_progress_bars()
