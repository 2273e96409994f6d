"""The demonstration: five acts of the market on a local chain, played by separate processes."""
