"""Commitments: Merkle trees over tensors, states and executions. Nothing here knows chains or money."""
