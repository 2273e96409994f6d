"""Which chain an endpoint serves: its number alone does not say, since every local chain has the same one."""

from __future__ import annotations

from dataclasses import dataclass

from hexbytes import HexBytes
from web3.exceptions import BlockNotFound

from assay.chain.rpc import Chain


@dataclass(frozen=True)
class ChainIdentity:
    """A chain by its number and the hashes of its first two blocks (hexadecimal with 0x).

    Local chains that are started in the same second have the same genesis block, so the block after it counts too;
    it is empty where there is none yet.
    """

    chain_id: int
    genesis: str
    first: str

    @property
    def name(self) -> str:
        """Short, for folders: what stays the same from the chain's beginning."""
        return f"{self.chain_id}-{self.genesis[2:10]}"

    def __str__(self) -> str:
        return f"chain {self.chain_id} with genesis {self.genesis[:18]}.."


def identify(chain: Chain) -> ChainIdentity:
    """Ask an endpoint which chain it serves."""
    eth = chain.web3.eth
    chain_id = int(chain.ask("asking for the chain id", lambda: eth.chain_id))
    return ChainIdentity(chain_id, block_hash(chain, 0), block_hash(chain, 1))


def block_hash(chain: Chain, number: int) -> str:
    """Hash of a block, in hexadecimal with 0x; empty where the chain has no such block."""

    def question() -> str:
        try:
            return HexBytes(chain.web3.eth.get_block(number)["hash"]).to_0x_hex()
        except BlockNotFound:
            return ""

    return chain.ask(f"reading block {number}", question)
