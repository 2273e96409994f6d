"""What the members of a group agree on: the terms, what each of them signs (EIP-712), and the file that goes round."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_utils.address import is_address, to_checksum_address
from eth_utils.crypto import keccak

from assay.market.errors import GroupAgreementError

FORMAT = 1
MAX_FILE = 1 << 20

_MEMBER = [("account", "address"), ("contribution", "uint96"), ("share", "uint32")]
_AGREEMENT = [
    ("members", "Member[]"),
    ("owners", "uint8[]"),
    ("task", "uint256"),
    ("leastPrice", "uint96"),
    ("mostStake", "uint96"),
    ("formBy", "uint40"),
    ("takeBy", "uint40"),
    ("patience", "uint32"),
    ("evidenceSeconds", "uint32"),
    ("presenceRate", "uint32"),
    ("plan", "bytes32"),
    ("nonce", "uint256"),
]
PRESENCE_VALUE = bytes(32)
_STATEMENT = [("task", "uint256"), ("run", "uint32"), ("subject", "bytes32"), ("value", "bytes32")]


@dataclass(frozen=True)
class AgreedMember:
    """One member: its account, its contribution in wei, its share of the earnings in parts per million."""

    account: str
    contribution: int
    share: int


@dataclass(frozen=True)
class Agreement:
    """The terms, in the fields of contracts/libraries/Agreements.sol; the first member leads.

    `presence_rate`: the part of every share, in parts per million, that is earned by taking part, segment by segment.
    """

    members: tuple[AgreedMember, ...]
    owners: tuple[int, ...]
    task: int
    least_price: int
    most_stake: int
    form_by: int
    take_by: int
    patience: int
    evidence_seconds: int
    presence_rate: int
    plan: bytes
    nonce: int

    def place_of(self, account: str) -> int:
        """A member's place. Raises `GroupAgreementError` for an account that is none."""
        for place, member in enumerate(self.members):
            if member.account == account:
                return place
        accounts = ", ".join(member.account for member in self.members)
        raise GroupAgreementError(f"{account} is no member of this agreement; its members are {accounts}")


@dataclass(frozen=True)
class Statement:
    """What a member says about its work: two values for one subject of one run convict it (Group.convict)."""

    task: int
    run: int
    subject: bytes
    value: bytes


def work_subject(segment: int, start: bytes) -> bytes:
    """Subject of "I trained this segment from the state with this root"; the value is the root it ended in."""
    return bytes(keccak(encode(["string", "uint32", "bytes32"], ["work", segment, start])))


def stage_subject(segment: int, until: int, program_root: bytes, data_root: bytes, start_root: bytes) -> bytes:
    """Subject of "in this segment my stage, this program over these data, began in this state"; the value is the root
    of the state it ended in. `until`: the last second in which the statement can be taken to court."""
    kinds = ["string", "uint32", "uint40", "bytes32", "bytes32", "bytes32"]
    return bytes(keccak(encode(kinds, ["stage", segment, until, program_root, data_root, start_root])))


def presence_subject(segment: int, accounts: Sequence[str]) -> bytes:
    """Subject of a receipt, "these accounts took part in this segment"; the value is `PRESENCE_VALUE`. The accounts are
    in the subject so that two receipts never contradict each other."""
    hashed = keccak(encode(["address[]"], [list(accounts)]))
    return bytes(keccak(encode(["string", "uint32", "bytes32"], ["presence", segment, hashed])))


def sign_agreement(agreement: Agreement, chain_id: int, factory: str, account: LocalAccount) -> bytes:
    """A member's signature, 65 bytes."""
    message = _agreement_message(agreement, chain_id, factory)
    return bytes(account.sign_message(encode_typed_data(full_message=message)).signature)


def agreement_signer(agreement: Agreement, chain_id: int, factory: str, signature: bytes) -> str:
    """The account that made a signature, or "" where it is malformed."""
    message = encode_typed_data(full_message=_agreement_message(agreement, chain_id, factory))
    return _signer(message, signature)


def sign_statement(statement: Statement, chain_id: int, group: str, account: LocalAccount) -> bytes:
    """A member's signature under a statement, 65 bytes."""
    message = encode_typed_data(full_message=_statement_message(statement, chain_id, group))
    return bytes(account.sign_message(message).signature)


def statement_signer(statement: Statement, chain_id: int, group: str, signature: bytes) -> str:
    """The account that signed a statement, or ""."""
    return _signer(encode_typed_data(full_message=_statement_message(statement, chain_id, group)), signature)


def _signer(message: Any, signature: bytes) -> str:
    try:
        return str(Account.recover_message(message, signature=signature))
    except Exception:  # the library raises several unrelated types for malformed signatures
        return ""


def _agreement_message(agreement: Agreement, chain_id: int, factory: str) -> dict[str, Any]:
    fields = (agreement.task, agreement.least_price, agreement.most_stake, agreement.form_by, agreement.take_by,
              agreement.patience, agreement.evidence_seconds, agreement.presence_rate, agreement.plan,
              agreement.nonce)  # fmt: skip
    values: list[Any] = [[asdict(member) for member in agreement.members], list(agreement.owners), *fields]
    message = {name: value for (name, _), value in zip(_AGREEMENT, values, strict=True)}
    return _typed("Agreement", {"Agreement": _AGREEMENT, "Member": _MEMBER}, chain_id, factory, message)


def _statement_message(statement: Statement, chain_id: int, group: str) -> dict[str, Any]:
    return _typed("Statement", {"Statement": _STATEMENT}, chain_id, group, asdict(statement))


def _typed(
    primary: str, types: Mapping[str, Sequence[tuple[str, str]]], chain_id: int, verifier: str, message: dict[str, Any]
) -> dict[str, Any]:
    domain = [("name", "string"), ("version", "string"), ("chainId", "uint256"), ("verifyingContract", "address")]
    every = {"EIP712Domain": domain, **types}
    return {
        "types": {name: [{"name": n, "type": t} for n, t in fields] for name, fields in every.items()},
        "primaryType": primary,
        "domain": {"name": "Assay group", "version": "1", "chainId": chain_id, "verifyingContract": verifier},
        "message": message,
    }


# ---- The file -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AgreementFile:
    """An agreement on its way round: for which chain and factory, the members' names, and who has signed so far."""

    chain_id: int
    factory: str
    names: tuple[str, ...]
    agreement: Agreement
    signatures: Mapping[str, bytes]  # by account

    @property
    def missing(self) -> list[str]:
        """Names of the members that have not signed."""
        pairs = zip(self.names, self.agreement.members, strict=True)
        return [name for name, member in pairs if member.account not in self.signatures]

    @property
    def addresses(self) -> dict[str, str]:
        """Accounts by members' names."""
        return {name: member.account for name, member in zip(self.names, self.agreement.members, strict=True)}

    def signed_by(self, account: LocalAccount) -> AgreementFile:
        """The same with a member's signature. Raises `GroupAgreementError` where the account is no member."""
        self.agreement.place_of(account.address)
        signature = sign_agreement(self.agreement, self.chain_id, self.factory, account)
        return replace(self, signatures={**self.signatures, account.address: signature})

    def merged(self, other: AgreementFile) -> AgreementFile:
        """The signatures of both. Raises `GroupAgreementError` where they are not about the same agreement."""
        if (self.chain_id, self.factory, self.agreement) != (other.chain_id, other.factory, other.agreement):
            raise GroupAgreementError("the files hold different agreements: let everybody sign the same file")
        return replace(self, signatures={**self.signatures, **other.signatures})


def write_agreement(file: AgreementFile, path: Path) -> None:
    """Write the file, atomically."""
    terms = asdict(file.agreement)
    terms["members"] = [
        {"name": name, **asdict(member), "contribution": str(member.contribution)}
        for name, member in zip(file.names, file.agreement.members, strict=True)
    ]
    terms |= {"plan": file.agreement.plan.hex(), "task": hex(file.agreement.task), "nonce": str(file.agreement.nonce)}
    terms |= {"least_price": str(file.agreement.least_price), "most_stake": str(file.agreement.most_stake)}
    document = {
        "format": FORMAT,
        "chain_id": file.chain_id,
        "factory": file.factory,
        "agreement": terms,
        "signatures": {account: signature.hex() for account, signature in file.signatures.items()},
    }
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n")
    partial.replace(path)


def read_agreement(path: Path) -> AgreementFile:
    """Read an agreement; every signature in it is checked. Raises `GroupAgreementError` saying what is wrong."""
    try:
        if path.stat().st_size > MAX_FILE:
            raise GroupAgreementError(f"{path} is too large to be an agreement: ask for the file again")
        document = json.loads(path.read_text())
        terms = document["agreement"]
        members = tuple(
            AgreedMember(account_of(each["account"]), int(each["contribution"]), int(each["share"]))
            for each in terms["members"]
        )
        agreement = Agreement(
            members, tuple(int(owner) for owner in terms["owners"]), int(terms["task"], 16), int(terms["least_price"]),
            int(terms["most_stake"]), int(terms["form_by"]), int(terms["take_by"]), int(terms["patience"]),
            int(terms["evidence_seconds"]), int(terms["presence_rate"]), bytes.fromhex(terms["plan"]),
            int(terms["nonce"]),
        )  # fmt: skip
        signatures = {account: bytes.fromhex(text) for account, text in document["signatures"].items()}
        names = tuple(str(each["name"]) for each in terms["members"])
        file = AgreementFile(int(document["chain_id"]), account_of(document["factory"]), names, agreement, signatures)
    except OSError as error:
        raise GroupAgreementError(f"cannot read the agreement {path} ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GroupAgreementError(f"{path} is no agreement of a group ({error!r}): ask for the file again") from error
    for account, signature in file.signatures.items():
        if agreement_signer(agreement, file.chain_id, file.factory, signature) != account:
            raise GroupAgreementError(f"{path}: the signature of {account} is not its own: let it sign again")
    return file


def account_of(text: Any) -> str:
    """The account that a file names. Raises `GroupAgreementError` where it is no address."""
    if not is_address(text):
        raise GroupAgreementError(f"{text!r} is no address of an account")
    return str(to_checksum_address(text))
