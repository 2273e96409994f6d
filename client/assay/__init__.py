"""Assay: a market for machine-learning training in which the work is proven.

The package's parts depend on each other in one direction only: command line -> roles -> (chain, storage, dispute,
training) -> (program, engine, commitments) -> arithmetic.
"""

__version__ = "0.1.0"
