"""Answers: streams that a producer makes for one client, many more of them than a server has threads."""
