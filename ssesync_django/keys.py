"""Keys of streams, for limits and for ``revoke()``: each names a user."""

from __future__ import annotations

from typing import Any

__all__ = ["key_of", "own_key"]


def key_of(user: Any) -> str:
    """The key of a user, for limits and for :func:`revoke`; text is a key itself.

    :param user: the user, or text.
    :return: the key.
    :raises TypeError: it is neither.
    """
    if isinstance(user, str):
        return user
    if getattr(user, "pk", None) is None:
        raise TypeError(f"a key is text or a saved user, got {type(user).__name__}")
    return f"user {user.pk}"


def own_key(request: Any) -> str | None:
    """The key of the logged-in user, if any."""
    user = getattr(request, "user", None)
    return key_of(user) if user is not None and user.is_authenticated else None
