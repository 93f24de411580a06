"""Channels in Django, on real servers."""
