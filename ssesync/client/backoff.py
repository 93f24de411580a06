"""Deprecated: the names of :mod:`ssesync.retry` under their former path."""

from ..retry import Backoff, Clock, Signal, SystemClock

__all__ = ["Backoff", "Clock", "Signal", "SystemClock"]
