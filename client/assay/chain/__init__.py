"""What connects the client to a chain: local chains, contracts, transactions and events."""
