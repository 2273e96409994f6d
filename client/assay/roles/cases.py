"""A case of the court as its players see it, from what the chain stores and what was logged."""

from __future__ import annotations

from assay.dispute.case import CaseView
from assay.dispute.reader import Event, view_of
from assay.market.court import CourtContract
from assay.market.events import CourtEvent
from assay.market.reader import MarketReader


def case_view(reader: MarketReader, case_id: int, court: CourtContract | None = None) -> CaseView | None:
    """A case of a court (the market's by default) at its present position; None if the chain has moved on beyond the
    events read so far."""
    court = court or reader.market.court
    position = court.position(case_id)
    logged = [each.event for each in reader.case_events(case_id)]
    events = [Event(each.name, each.arguments) for each in logged if isinstance(each, CourtEvent)]
    moves = [each for each in events if "position" in each.arguments]
    if not moves or bytes(moves[-1].arguments["position"]) != position:
        return None
    return view_of(case_id, position, court.case(case_id), events)
