"""Flag beats environment beats file beats default, and a bad value says where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.settings import SETTINGS, SettingsError, load_settings


def test_the_nearest_place_wins(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[chain]\nurl = "http://file"\nconfirmations = 5\ntip = 2.5\n')
    environment = {"ASSAY_CHAIN_URL": "http://environment", "ASSAY_CHAIN_CONFIRMATIONS": "7"}
    settings = load_settings({"chain.url": "http://flag"}, file, environment)
    found = [
        (settings.values[name], settings.origins[name]) for name in ("chain.url", "chain.confirmations", "chain.tip")
    ]
    assert found == [("http://flag", "flag"), (7, "environment"), (2.5, str(file))]
    assert settings.origins["chain.fee_cap"] == "default"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[chain]\nconfirmations = 0", "chain.confirmations is 0"),
        ('[chain]\nconfirmations = "many"', "a whole number"),
        ('[storage]\nkind = "tape"', "one of directory, ipfs, s3"),
        ("[chain]\nurll = 1", "no setting 'chain.urll'"),
        ("url = 1", "outside a table"),
        ("[chain", "cannot be read"),
        ("[chain]\nurl = 1", "it must be text"),
        ("[chain]\nfee_cap = nan", "a finite number"),
        ("[chain]\nfee_cap = inf", "a finite number"),
        ("[chain]\nconfirmations = inf", "a whole number"),
        ("[chain]\nconfirmations = 1.9", "chain.confirmations is 1.9"),
        ("# \udcff", "cannot be read"),
    ],
)
def test_a_bad_file_is_refused_by_name(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SettingsError) as caught:
        load_settings({}, file, {})
    assert message in str(caught.value)


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--config"):
        load_settings({}, tmp_path / "none.toml", {})


def test_every_default_is_acceptable() -> None:
    for setting in SETTINGS.values():
        assert setting.read(setting.default) == setting.default
