"""Requests for a run: its name, its subject and its fingerprint."""

from __future__ import annotations

from typing import NamedTuple

from ...errors import RunConflict, RunUnknown, excerpt
from ..message import check_channel
from .record import RunRecord

__all__ = ["RunRequest", "request_of", "unknown"]


class RunRequest(NamedTuple):
    """A request for a run."""

    name: str
    subject: str | None
    """The subject that it must have; ``None``: any."""
    fingerprint: str | None = None
    """The fingerprint that it must have; ``None``: any."""
    restart: bool = False
    """Whether one that has ended is started anew."""

    def check(self, record: RunRecord) -> None:
        """Check that a run is the requested one.

        :param record: the run of this name.
        :raises RunConflict: it was started with something else.
        :raises RunUnknown: it is another subject's.
        """
        if self.subject not in (None, record.subject):
            raise unknown(self.name)
        if self.fingerprint not in (None, record.fingerprint) and not self.replaces(record):
            raise RunConflict(f"there is a run {excerpt(self.name)} that was started with another fingerprint")

    def replaces(self, record: RunRecord) -> bool:
        """Whether a run is started anew.

        :param record: the run of this name.
        """
        return self.restart and record.state.ended


def request_of(
    name: object, subject: object, fingerprint: object = None, *, optional: bool = False, restart: bool = False
) -> RunRequest:
    """Check a request for a run.

    :param name: the run's.
    :param subject: its subject.
    :param fingerprint: its fingerprint; ``None``: any.
    :param optional: whether the subject may be ``None``.
    :param restart: whether one that has ended is started anew.
    :return: the request.
    :raises ChannelError: no run can have this name.
    :raises TypeError: one of them is no text.
    """
    for what, value, may_be_none in (("subject", subject, optional), ("fingerprint", fingerprint, True)):
        if not (isinstance(value, str) or (value is None and may_be_none)):
            raise TypeError(f"the {what} of a run is text, got {excerpt(value)}")
    return RunRequest(check_channel(name), subject, fingerprint, restart)  # type: ignore[arg-type]


def unknown(name: str) -> RunUnknown:
    """Make the error for a run that does not exist, or belongs to another subject.

    :param name: the run's.
    :return: the error.
    """
    return RunUnknown(f"there is no run {excerpt(name)}")
