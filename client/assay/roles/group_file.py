"""Read `group.toml`: who is in a group, on which terms, and how its members train together (`templates/group.toml`)."""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from assay.group.execution.run import AUDIT_RATE, Seat
from assay.group.plan import GroupPlan, read_plan
from assay.market.errors import GroupAgreementError
from assay.market.group_agreement import AgreedMember, Agreement, AgreementFile, account_of
from assay.market.parameters import COIN
from assay.market.types import MILLION

MAX_FILE = 1 << 20
LEAST_RECORD_SECONDS = 3600
"""For so long a member answers for its stage in a segment, at least: an audit comes at once, its case soon after."""


@dataclass(frozen=True)
class GroupFile:
    """A parsed group.toml; paths are relative to it."""

    path: Path
    agreement: Path
    plan: Path
    cluster: Path
    meet: tuple[str, int]
    interface: str
    names: tuple[str, ...]
    members: tuple[AgreedMember, ...]
    owners: tuple[int, ...]
    limits: Mapping[str, Any]

    def draft(self, now: int, chain_id: int, factory: str, nonce: int) -> AgreementFile:
        """The agreement these terms come to if it is made at `now` (seconds since 1970); nobody has signed it."""
        limits = self.limits
        form_by = now + int(3600 * _number(limits, "form_hours", 24))
        agreement = Agreement(
            self.members,
            self.owners,
            _task(limits.get("task", "0")),
            _coins(limits.get("least_price", "0"), "limits.least_price"),
            _coins(limits["most_stake"], "limits.most_stake"),
            form_by,
            form_by + int(86400 * _number(limits, "take_days", 7)),
            int(60 * _number(limits, "patience_minutes", 60)),
            int(3600 * _number(limits, "evidence_hours", 24)),
            round(MILLION * _fraction(limits, "paid_for_presence", 0.0)),
            hashlib.sha256(self.plan.read_bytes()).digest() if self.plan.exists() else bytes(32),
            nonce,
        )
        return AgreementFile(chain_id, factory, self.names, agreement, {})

    def training(self, agreement: AgreementFile, account: str, private_key: str) -> tuple[GroupPlan, Seat]:
        """The plan and an account's seat in it. Raises `GroupAgreementError` where the plan is not the agreed one."""
        digest = hashlib.sha256(self.plan.read_bytes()).digest()
        if digest != agreement.agreement.plan:
            raise GroupAgreementError(
                f"{self.plan} is not the plan that was agreed on (its hash is {digest.hex()[:16]}..): ask for the file "
                "that was signed for"
            )
        name = agreement.names[agreement.agreement.place_of(account)]
        host, port = self.meet
        # A statement about a stage can be taken to court for as long as members agreed to hear evidence, or for longer.
        asked = int(3600 * _number(self.limits, "record_hours", agreement.agreement.evidence_seconds / 3600))
        record_seconds = max(LEAST_RECORD_SECONDS, asked)
        seat = Seat(
            name, self.cluster, host, port, private_key, agreement.addresses, interface=self.interface,
            audit_rate=_fraction(self.limits, "audit_rate", AUDIT_RATE), record_seconds=record_seconds,
        )  # fmt: skip
        return read_plan(self.plan), seat


def read_group_file(path: Path) -> GroupFile:
    """Read a group.toml. Raises `GroupAgreementError` naming what is wrong."""
    try:
        if path.stat().st_size > MAX_FILE:
            raise GroupAgreementError(f"{path} is too large to describe a group")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GroupAgreementError(f"cannot read {path} ({error.strerror}): name the group's file") from error
    except ValueError as error:
        raise GroupAgreementError(f"{path} is no TOML: {error}") from error
    rows = document.get("member", [])
    limits = document.get("limits", {})
    try:
        names = tuple(str(row["name"]) for row in rows)
        members = tuple(
            AgreedMember(
                account_of(row["account"]),
                _coins(row.get("contribution", "0"), f"contribution of {row['name']}"),
                _share(row["share"], str(row["name"])),
            )
            for row in rows
        )
        if not members or "most_stake" not in limits:
            raise GroupAgreementError(f"{path} needs at least one [[member]] and limits.most_stake")
        owners = tuple(_place(names, str(name)) for name in document.get("segments", ()))
        host, _, port = str(document.get("meet", "127.0.0.1:29400")).rpartition(":")
        base = path.parent
        return GroupFile(
            path,
            base / str(document.get("agreement", "agreement.json")),
            base / str(document.get("plan", "plan.toml")),
            base / str(document.get("cluster", "cluster.toml")),
            (host, int(port)),
            str(document.get("interface", "lo")),
            names,
            members,
            owners,
            limits,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise GroupAgreementError(f"{path} lacks or misnames a field: {error}; see `assay group new`") from error
    except ValueError as error:
        raise GroupAgreementError(f"{path}: meet is not HOST:PORT ({error})") from error


def _place(names: tuple[str, ...], name: str) -> int:
    if name not in names:
        raise GroupAgreementError(f"segments names {name!r}, who is no member; members are {', '.join(names)}")
    return names.index(name)


def _coins(value: Any, what: str) -> int:
    try:
        wei = Decimal(str(value)) * COIN
    except InvalidOperation as error:
        raise GroupAgreementError(f"{what} is {value!r}: write an amount of coins, such as 0.25") from error
    if not wei.is_finite() or wei < 0 or wei != wei.to_integral_value():
        raise GroupAgreementError(f"{what} is {value!r}: at most 18 decimal places and no sign")
    return int(wei)


def _share(value: Any, name: str) -> int:
    try:
        share = Decimal(str(value)) * MILLION
    except InvalidOperation:
        share = Decimal(0)
    if not share.is_finite() or not 1 <= share <= MILLION or share != share.to_integral_value():
        raise GroupAgreementError(f"the share of {name} is {value!r}: between 0.000001 and 1, at most 6 decimal places")
    return int(share)


def _task(value: Any) -> int:
    try:
        number = int(str(value), 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 256:
        raise GroupAgreementError(f"limits.task is {value!r}: write the number of a task, such as 0x1f..")
    return number


def _fraction(limits: Mapping[str, Any], name: str, default: float) -> float:
    value = _number(limits, name, default)
    if value > 1:
        raise GroupAgreementError(f"limits.{name} is {value!r}: write a fraction between 0 and 1")
    return value


def _number(limits: Mapping[str, Any], name: str, default: float) -> float:
    value = limits.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise GroupAgreementError(f"limits.{name} is {value!r}: write a number that is not negative")
    return float(value)
