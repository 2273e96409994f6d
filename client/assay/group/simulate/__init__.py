"""A group on one machine, over links as slow as a scenario says."""
