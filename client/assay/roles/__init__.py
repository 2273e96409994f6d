"""The roles of the market: each reads the chain, decides, and sends. Deciding is pure; reading and sending are not."""
