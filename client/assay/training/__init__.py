"""Training with proof: checkpoints, replays, distances and profiles. Knows programs and engines, nothing of chains."""
