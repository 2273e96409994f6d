"""Pipelines over torch.distributed: stages, compressed boundaries, replicas with a fixed order of reduction."""
