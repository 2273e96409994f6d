"""The market under load and faults: hundreds of tasks by honest, dishonest and absent roles on a local chain, with
kills, reorganisations, and stores and endpoints that fail; and what must be true of the accounts afterwards."""
