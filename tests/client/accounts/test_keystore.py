"""Key files: never overwritten, never readable by others, opened only by their password."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.accounts import (
    AccountError,
    create_keystore,
    import_keystore,
    keystore_address,
    open_keystore,
    read_password,
)

QUICK = 2  # iterations of the key derivation: low on purpose


def test_a_new_key_is_opened_by_its_password_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "solver.json"
    address = create_keystore(path, "long enough", QUICK)
    assert path.stat().st_mode & 0o077 == 0
    assert open_keystore(path, "long enough").address == address
    with pytest.raises(AccountError, match="does not open"):
        open_keystore(path, "something else")


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    address = import_keystore(path, "0x" + "11" * 32, "long enough", QUICK)
    with pytest.raises(AccountError, match="never overwritten"):
        create_keystore(path, "long enough", QUICK)
    assert open_keystore(path, "long enough").address == address


@pytest.mark.parametrize("key", ["", "0x12", "zz" * 32, "0x" + "00" * 32])
def test_a_text_that_is_no_key_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(AccountError):
        import_keystore(tmp_path / "key.json", key, "long enough", QUICK)
    assert list(tmp_path.iterdir()) == []


def test_short_passwords_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AccountError, match="at least 8"):
        create_keystore(tmp_path / "key.json", "short", QUICK)
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "torn.json").write_text('{"crypto":')
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    for name in ("bad.json", "torn.json", "list.json", "bytes.json", "missing.json"):
        with pytest.raises(AccountError, match=name):
            open_keystore(tmp_path / name, "long enough")
        with pytest.raises(AccountError, match=name):
            keystore_address(tmp_path / name)


def test_a_password_comes_from_file_or_environment_and_never_silently_from_nowhere(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from file\n")
    assert read_password("?", str(tmp_path / "password"), {}) == "from file"
    assert read_password("?", None, {"ASSAY_PASSWORD": "from environment"}) == "from environment"
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(AccountError, match="account.password_file"):
        read_password("?", str(tmp_path / "bytes"), {})
    with pytest.raises(AccountError, match="ASSAY_PASSWORD"):
        read_password("?", None, {})
