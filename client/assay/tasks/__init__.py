"""Tasks as files: what a submitter writes (`task.toml`), what everybody else fetches (a bundle), and proofs."""
