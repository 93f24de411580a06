"""Benchmarks of the library, compared with others. See docs/benchmarks.md."""
