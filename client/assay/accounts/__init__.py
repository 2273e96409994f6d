"""Keys: encrypted key files (Web3 Secret Storage, version 3), opened once."""

from assay.accounts.keystore import AccountError, create_keystore, import_keystore, open_keystore, read_password

__all__ = ["AccountError", "create_keystore", "import_keystore", "open_keystore", "read_password"]
