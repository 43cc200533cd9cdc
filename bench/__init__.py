"""Benchmarks; each module runs by itself: ``python -m bench.scheduler``."""
