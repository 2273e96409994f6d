"""Compression that a task declares: found in its step, and what it means for who computes and sends what."""
