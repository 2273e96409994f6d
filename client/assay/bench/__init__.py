"""Benchmarks behind `assay bench`: ratios measured in one process, interleaved, medians."""
