"""Publish and subscribe, with replay: from any thread, process or machine, depending on the broker."""
