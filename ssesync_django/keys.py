"""Keys of streams: whose they are, for limits and for ``revoke()``."""

from __future__ import annotations

from typing import Any

__all__ = ["key_of", "own_key"]


def key_of(who: Any) -> str:
    """The key of a user, for limits and for :func:`revoke`; text is a key itself.

    :param who: the user, or text.
    :return: the key.
    :raises TypeError: it is neither.
    """
    if isinstance(who, str):
        return who
    if getattr(who, "pk", None) is None:
        raise TypeError(f"a key is text or a saved user, got {type(who).__name__}")
    return f"user {who.pk}"


def own_key(request: Any) -> str | None:
    """The key of the user who is logged in, if any."""
    user = getattr(request, "user", None)
    return key_of(user) if user is not None and user.is_authenticated else None
