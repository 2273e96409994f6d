"""Training one task with several machines over slow networks: placement, compressed pipelines, local steps, faults."""
