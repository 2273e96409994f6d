"""Encrypted key files. A key is in the clear only in the memory of the process that signs with it."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import is_address, to_checksum_address

from assay.errors import AssayError

PASSWORD_VARIABLE = "ASSAY_PASSWORD"
MINIMUM_PASSWORD = 8
GROUP_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Order of secp256k1 (SEC 2, section 2.4.1): private keys lie between 1 and it."""


class AccountError(AssayError):
    """A key file cannot be read, written or opened."""

    code = "account"


def read_password(
    prompt: str,
    password_file: str | None = None,
    environment: Mapping[str, str] | None = None,
    confirm: bool = False,
) -> str:
    """The password from a file, the environment (ASSAY_PASSWORD), or a prompt on the terminal; in this order.

    Never from the command line, where other users of the machine could read it.
    """
    environment = os.environ if environment is None else environment
    if password_file:
        try:
            return Path(password_file).read_text().rstrip("\r\n")
        except OSError as error:
            raise AccountError(f"cannot read the password file {password_file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise AccountError(
                f"the password file {password_file} holds no text: correct account.password_file"
            ) from error
    if PASSWORD_VARIABLE in environment:
        return environment[PASSWORD_VARIABLE]
    if not sys.stdin.isatty():
        raise AccountError(f"no password: set {PASSWORD_VARIABLE}, or account.password_file, or run on a terminal")
    password = getpass.getpass(prompt)
    if confirm and getpass.getpass("the same again: ") != password:
        raise AccountError("the two passwords differ: nothing was written")
    return password


def create_keystore(path: Path, password: str, iterations: int | None = None) -> str:
    """Make a new key, write it encrypted to `path` (which must not exist), and return its address."""
    return _write(path, Account.create(), password, iterations)


def import_keystore(path: Path, private_key: str, password: str, iterations: int | None = None) -> str:
    """Write a given private key (hexadecimal) encrypted to `path`, and return its address."""
    try:
        if not 0 < int(private_key.strip(), 16) < GROUP_ORDER:
            raise ValueError("outside the group")
        account = Account.from_key(private_key.strip())
    except (ValueError, TypeError) as error:
        raise AccountError("the text is no private key: one has 64 hexadecimal digits") from error
    return _write(path, account, password, iterations)


def _write(path: Path, account: LocalAccount, password: str, iterations: int | None) -> str:
    if len(password) < MINIMUM_PASSWORD:
        raise AccountError(f"the password has {len(password)} characters: use at least {MINIMUM_PASSWORD}")
    if path.exists():
        raise AccountError(f"{path} exists: give another name, key files are never overwritten")
    content = json.dumps(Account.encrypt(account.key, password, iterations=iterations))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(path.name + ".partial")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise AccountError(f"cannot write {path}: {error.strerror}") from error
    return str(account.address)


def keystore_address(path: Path) -> str:
    """The address that a key file names, without its password."""
    content = _read(path)
    address = content.get("address")
    if not isinstance(address, str) or not is_address(address):
        raise AccountError(f"{path} is no key file: it names no address; restore it from a copy")
    return str(to_checksum_address(address))


def _read(path: Path) -> dict[str, Any]:
    """A key file's content, not decrypted."""
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError(type(content).__name__)
    except OSError as error:
        raise AccountError(f"cannot read {path}: {error.strerror}; make one with `assay account new`") from error
    except ValueError as error:
        raise AccountError(f"{path} is no key file: restore it from a copy") from error
    return content


def open_keystore(path: Path, password: str) -> LocalAccount:
    """The account of a key file. Takes up to a second by design: open once and keep it."""
    content = _read(path)
    try:
        account: LocalAccount = Account.from_key(Account.decrypt(content, password))
    except (ValueError, KeyError, TypeError) as error:
        raise AccountError(f"the password does not open {path}: try again") from error
    return account
