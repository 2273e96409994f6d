"""Programs: one training step as a static list of operators, from the PyTorch trace to the single scalar operation.

Formats: contracts/FORMAT.md, section 2.
"""
