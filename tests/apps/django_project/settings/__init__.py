"""The settings, by what the views are served for; each takes in ``base``."""
