"""Where task files and proofs lie: a directory, an IPFS node, or object storage.

A locator says where a file is, never what it is: everything fetched is compared with roots from the chain before use.
"""
