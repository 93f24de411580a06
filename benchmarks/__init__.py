"""What the library costs, beside what else there is. See docs/benchmarks.md."""
