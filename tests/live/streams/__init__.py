"""Streams that notice what happens round them: clients that leave or stall, limits, servers that stop, proxies."""
