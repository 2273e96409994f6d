"""Keys: encrypted key files (Web3 Secret Storage, version 3), opened once."""

from assay.accounts.keystore import (
    AccountError,
    create_keystore,
    import_keystore,
    keystore_address,
    open_keystore,
    read_password,
)
from assay.accounts.lock import AccountInUseError, AccountLock

__all__ = [
    "AccountError",
    "AccountInUseError",
    "AccountLock",
    "create_keystore",
    "import_keystore",
    "keystore_address",
    "open_keystore",
    "read_password",
]
