"""Addresses of hosts that may hold a user and a password: taken apart once, where they come in.

What is kept and passed on has none, so that no file, message, log or error of a library can show
it; the password goes to its host in the header that the field uses for it, and to no other host.
"""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import unquote, urlsplit, urlunsplit


def split_login(url: str) -> tuple[str, str | None]:
    """An address without user and password, and the value of ``Authorization`` they stand for.

    Args:
        url: ``https://user:password@host/path``; percent escapes stand for what they mean.

    Returns:
        The address, and ``Basic …`` or None where there was no login in it.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # no address; whoever opens it says so
        return url, None
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    user, _, password = login.partition(":")
    said = f"{unquote(user)}:{unquote(password)}".encode("utf-8", "surrogateescape")
    return urlunsplit(parts._replace(netloc=host)), f"Basic {b64encode(said).decode('ascii')}"
