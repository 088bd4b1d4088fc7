"""What a hub refuses, in words with what to do next, and never with a token."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from safeswap.display import without_password
from safeswap.errors import OutputError, SafeswapError

_RESUMED = "What was sent is kept there: the same command goes on with the rest."
Answer = TypeVar("Answer")
_FULL = re.compile(r"(?i)quota|storage (?:limit|space)|exceeded .*storage|payment required")


def in_hub_words(repo: str, secrets: tuple[str, ...], ask: Callable[[], Answer]) -> Answer:
    """Ask a hub. What its client raises becomes one message; its own exceptions, which hold the
    request with its token, go no further, not even as the context of ours.

    Args:
        secrets: texts that no message may hold, whatever a server says.

    Raises:
        OutputError: for whatever went wrong.
    """
    try:
        return ask()
    except (SafeswapError, KeyboardInterrupt):
        raise
    except Exception as error:
        message = f"{repo}: {_said(_cause(error), repo)}"
    raise OutputError(scrubbed(message, secrets))


def scrubbed(text: str, secrets: tuple[str, ...]) -> str:
    """Text without secrets."""
    text = re.sub(r"\bhf_[A-Za-z0-9]{8,}", "hf_…", without_password(text))
    for secret in secrets:
        text = text.replace(secret, "…")
    return text


def _cause(error: BaseException) -> BaseException:
    """The error that a client wrapped: of the files of an upload it says which one alone."""
    while type(error) is RuntimeError and error.__cause__ is not None:
        error = error.__cause__
    return error


def status_of(error: BaseException) -> int | None:
    """The status that a hub answered with; None where it did not answer."""
    status = getattr(getattr(_cause(error), "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def is_passing(error: BaseException) -> bool:
    """Whether the same request may well succeed a little later."""
    status = status_of(error)
    if status is not None:
        return status in (408, 425, 429) or status >= 500
    name = type(_cause(error)).__name__
    return any(word in name for word in ("Timeout", "Connect", "Network", "Protocol", "ReadError"))


def _said(error: BaseException, repo: str) -> str:
    org = repo.partition("/")[0]
    status, text = status_of(error), _first_line(error)
    if _FULL.search(text) or status in (402, 413, 507):
        return (
            f"the hub has no room for it ({text}). Remove other repositories of {org}, get more "
            "private storage, or publish it with --public, where the limits are others. " + _RESUMED
        )
    if status == 401:
        return (
            "the token is not accepted: it was revoked, has run out, or is of another hub. Log in "
            "again (hf auth login), or set HF_TOKEN to one with the right to write. " + _RESUMED
        )
    if status == 403:
        return (
            f"the token may not write there ({text}). It needs the role write, and {org} must be "
            "you or an organisation in which you may write: make such a token in the hub's "
            "settings, or name another ORG. " + _RESUMED
        )
    if status == 404:
        return (
            f"is not there, or not for this token ({text}). Check ORG/NAME and --revision; {org} "
            "must exist."
        )
    if status in (409, 412):
        return (
            f"something else was written there at the same time ({text}). Look at it, and run the "
            "same command again. " + _RESUMED
        )
    if status == 429:
        return f"the hub asks for a pause ({text}). Wait some minutes. {_RESUMED}"
    if status is not None and status >= 500:
        return f"the hub failed, several times ({text}). {_RESUMED}"
    if status is not None:
        return f"the hub refused it ({text}). {_RESUMED}"
    if is_passing(error):
        return (
            f"the hub cannot be reached ({text}). Check the connection (and HF_ENDPOINT, where "
            f"that is set). {_RESUMED}"
        )
    return f"failed ({type(error).__name__}: {text}). {_RESUMED}"


def _first_line(error: BaseException) -> str:
    server = getattr(error, "server_message", None)
    text: Any = server or str(error).strip() or type(error).__name__
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[0][:300].rstrip(".") if lines else type(error).__name__
