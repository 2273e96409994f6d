"""The market's contracts, typed: calls, events, a deployment's addresses, and a picture of all tasks and claims."""
