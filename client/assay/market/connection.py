"""All contracts of one deployment, on one chain."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from assay.chain.rpc import Chain
from assay.market.abi import all_errors
from assay.market.answers import AnswersContract
from assay.market.claims import ClaimsContract
from assay.market.court import CourtContract
from assay.market.deploy import check_deployment
from assay.market.deployment import COMPANIONS, HELPERS, MODULES, Deployment, read_deployment
from assay.market.presence import PresenceContract
from assay.market.settlement import DemandsContract, JackpotContract, SeedsContract, SettlementContract
from assay.market.stage_claims import StageClaimsContract
from assay.market.stakes import StakesContract
from assay.market.tasks import TasksContract
from assay.market.verification import VerificationContract


class Market:
    """Typed access to a deployment: `market.tasks.take(task)` makes a `Call` for a `Sender`, `market.tasks.price(task)`
    asks the chain."""

    def __init__(self, chain: Chain, deployment: Deployment) -> None:
        self.chain, self.deployment = chain, deployment
        self.parameters = deployment.parameters

    def address(self, name: str) -> str:
        """Address of a contract by its Solidity name."""
        return self.deployment.addresses[name]

    @property
    def addresses(self) -> Mapping[str, str]:
        return self.deployment.addresses

    @cached_property
    def stakes(self) -> StakesContract:
        return StakesContract(self.chain, "Stakes", self.address("Stakes"))

    @cached_property
    def tasks(self) -> TasksContract:
        return TasksContract(self.chain, "Market", self.address("Market"))

    @cached_property
    def verification(self) -> VerificationContract:
        return VerificationContract(self.chain, "Verification", self.address("Verification"))

    @cached_property
    def answers(self) -> AnswersContract:
        return AnswersContract(self.chain, "Answers", self.address("Answers"))

    @cached_property
    def claims(self) -> ClaimsContract:
        return ClaimsContract(self.chain, "Claims", self.address("Claims"))

    @cached_property
    def settlement(self) -> SettlementContract:
        return SettlementContract(self.chain, "Settlement", self.address("Settlement"))

    @cached_property
    def demands(self) -> DemandsContract:
        return DemandsContract(self.chain, "Demands", self.address("Demands"))

    @cached_property
    def jackpot(self) -> JackpotContract:
        return JackpotContract(self.chain, "Jackpot", self.address("Jackpot"))

    @cached_property
    def seeds(self) -> SeedsContract:
        return SeedsContract(self.chain, "Seeds", self.address("Seeds"))

    @cached_property
    def court(self) -> CourtContract:
        return CourtContract(self.chain, "Court", self.address("Court"))

    @cached_property
    def stage_claims(self) -> StageClaimsContract:
        return StageClaimsContract(self.chain, "StageClaims", self.address("StageClaims"))

    @cached_property
    def stage_court(self) -> CourtContract:
        """The same court over the statements of groups' members."""
        return CourtContract(self.chain, "StageCourt", self.address("StageCourt"))

    @cached_property
    def presence(self) -> PresenceContract:
        """Who was absent while a group trained."""
        return PresenceContract(self.chain, "Presence", self.address("Presence"))


def open_chain(url: str) -> Chain:
    """A connection that tells the market's custom errors in words."""
    return Chain(url, all_errors((*MODULES, *HELPERS, *COMPANIONS, "Group")))


def connect(url: str, deployment_file: Path) -> Market:
    """The market of a deployment file, on the chain at `url`. Raises `DeploymentError` where the two do not fit."""
    deployment = read_deployment(deployment_file)
    chain = open_chain(url)
    check_deployment(chain, deployment)
    return Market(chain, deployment)
