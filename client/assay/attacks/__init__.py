"""Known attacks on the market, as pure functions: tests and benchmarks carry them out against the real code."""
