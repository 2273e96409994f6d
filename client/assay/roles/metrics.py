"""Figures of a role for Prometheus."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from assay.errors import UsageError


class Metrics:
    """What a role measures. Amounts in whole coins."""

    def __init__(self, role: str) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, meaning: str) -> Gauge:
            found = Gauge(f"assay_{name}", meaning, ["role"], registry=self.registry)
            return found.labels(role)

        self.credit = gauge("credit_coins", "Earnings that can be withdrawn.")
        self.earned = gauge("earned_coins", "All that was paid to the account so far; its own bonds returned included.")
        self.free = gauge("stake_free_coins", "Stake that nothing holds.")
        self.locked = gauge("stake_at_risk_coins", "Stake and seats held for tasks and rounds.")
        self.bonds = gauge("bonds_at_risk_coins", "Bonds of answers and cases that are not decided.")
        self.last_success = gauge("last_success_timestamp_seconds", "When a transaction last succeeded.")
        self.block = gauge("block", "Newest block acted on.")
        self.queue = gauge("queue_length", "Work and transactions not finished.")
        self.replay_speed = gauge("replay_speed_units", "Units of work a second of the last segment replayed.")
        self.sent = Counter(
            "assay_transactions", "Transactions by outcome.", ["role", "outcome"], registry=self.registry
        )
        self.troubles = Counter("assay_errors", "Errors by code.", ["role", "code"], registry=self.registry)
        self.gas = Counter("assay_gas", "Gas used.", ["role"], registry=self.registry).labels(role)
        self.role = role

    def count(self, outcome: str, gas: int) -> None:
        """A transaction has become final."""
        self.sent.labels(self.role, outcome).inc()
        self.gas.inc(gas)
        if outcome == "succeeded":
            self.last_success.set(time.time())

    def trouble(self, code: str) -> None:
        """Something failed, and is waited for or tried again."""
        self.troubles.labels(self.role, code).inc()

    def serve(self, port: int) -> None:
        """Answer Prometheus on the loopback interface. Raises `UsageError` where the port is taken."""
        try:
            start_http_server(port, "127.0.0.1", registry=self.registry)
        except OSError as error:
            raise UsageError(f"--metrics-port {port}: {error.strerror}; choose another port") from error
