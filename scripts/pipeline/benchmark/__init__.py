"""Parts of `benchmark.py`: sources, measuring, and the methods it compares with."""
