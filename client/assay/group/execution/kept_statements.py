"""What all members signed about their stages in a segment, beside a member's own record of it: who was wrong is found
out of it when a segment has failed (`inquiry`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from assay.group.errors import GroupMessageError
from assay.group.execution.stage_program import Link
from assay.group.execution.stage_records import decode_work, encode_work
from assay.group.execution.stage_statements import SignedStage
from assay.training.checkpoint import write_synced

STATEMENTS = "statements.json"


def keep_statements(record: Path, signed: Sequence[SignedStage]) -> None:
    """Put what the members of a segment signed, in the order of their stages, into a member's record of it."""
    rows = [
        {
            "work": encode_work(each.work),
            "signature": each.signature.hex(),
            "sent": {link.name: root.hex() for link, root in each.sent.items()},
        }
        for each in signed
    ]
    write_synced(record / STATEMENTS, json.dumps(rows) + "\n")


def read_statements(record: Path, links: Iterable[Link]) -> list[SignedStage]:
    """Read what `keep_statements` wrote. Raises GroupMessageError where it is damaged."""
    named = {link.name: link for link in links}
    try:
        rows = json.loads((record / STATEMENTS).read_text(encoding="utf-8"))
        return [
            SignedStage(
                decode_work(row["work"]),
                bytes.fromhex(row["signature"]),
                {named[name]: bytes.fromhex(root) for name, root in row["sent"].items()},
            )
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GroupMessageError(
            f"{record} does not say what the members signed ({error!r}): the segment cannot be looked into from here"
        ) from error
