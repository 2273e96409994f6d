// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Claim, ClaimKind} from "../interfaces/IClaims.sol";
import {OpenEvidence, Reading} from "../interfaces/IProver.sol";
import {Facts, Part} from "./Cases.sol";
import {Headers} from "./Headers.sol";
import {Trees} from "./Trees.sol";

/// @title DisputedLeaf
/// @notice Reads the disputed leaf of a claim, and what it started from, out of the evidence that opens a case
/// (contracts/FORMAT.md, section 3).
library DisputedLeaf {
    using Headers for bytes;

    uint256 internal constant REPLAY_BYTES = 72;
    uint256 internal constant PROFILE_BYTES = 136;

    /// @notice A leaf outside the claim's tree.
    error NoSuchLeaf(uint32 leaf, uint32 leaves);

    /// @notice The claim has no such part.
    error NoSuchPart(ClaimKind kind, Part part);

    /// @notice What the evidence proves about the leaf. Reverts where it proves nothing.
    function read(Claim memory claim, uint32 segment, uint32 leaf, Part part, OpenEvidence calldata evidence)
        internal
        view
        returns (Reading memory reading)
    {
        if (leaf >= claim.leaves) revert NoSuchLeaf(leaf, claim.leaves);
        reading.segment = segment;
        reading.leaf = leaf;
        reading.part = part;
        reading.facts.programRoot = claim.programRoot;
        reading.facts.dataRoot = claim.dataRoot;
        reading.facts.taskSeed = claim.taskSeed;
        if (claim.kind == ClaimKind.Training) _readTraining(reading, claim, evidence);
        else if (claim.kind == ClaimKind.Replay) _readReplay(reading, claim, evidence);
        else if (claim.kind == ClaimKind.Profile) _readProfile(reading, claim, evidence);
        else _readStage(reading, claim);
    }

    function _readTraining(Reading memory reading, Claim memory claim, OpenEvidence calldata evidence) private view {
        if (reading.part != Part.End) revert NoSuchPart(claim.kind, reading.part);
        uint256 depth = Trees.depthOf(claim.leaves);
        reading.claimed = _openState(evidence.leaf, reading.leaf, depth, evidence.leafProof, claim.root);
        reading.facts.endRoot = reading.claimed;
        reading.facts.startRoot =
            _openState(evidence.previous, reading.leaf - 1, depth, evidence.previousProof, claim.root);
    }

    function _readReplay(Reading memory reading, Claim memory claim, OpenEvidence calldata evidence) private view {
        _openRecord(0x05, evidence.leaf, REPLAY_BYTES, reading.leaf, claim, evidence.leafProof);
        Facts memory facts = reading.facts;
        facts.endRoot = bytes32(evidence.leaf[4:36]);
        uint32 distance = uint32(bytes4(evidence.leaf[36:40]));
        uint256 depth = Trees.depthOf(uint256(claim.segments) + 1);
        facts.startRoot =
            _openState(evidence.previous, reading.segment, depth, evidence.previousProof, claim.checkpointRoot);
        if (reading.part == Part.End) {
            reading.claimed = facts.endRoot;
        } else if (reading.part == Part.Trace) {
            reading.claimed = bytes32(evidence.leaf[40:72]);
        } else if (reading.part == Part.Distance && !claim.exact) {
            facts.comparedRoot = evidence.compared;
            facts.thresholdRoot = claim.thresholdRoot;
            reading.claimed = Trees.scalarRoot(distance);
            uint256 next = uint256(reading.segment) + 1;
            Trees.verify(evidence.compared, next, depth, evidence.comparedProof, claim.checkpointRoot);
        } else if (reading.part != Part.Distance || distance == 0) {
            revert NoSuchPart(claim.kind, reading.part);
        }
        reading.refuted = uint32(bytes4(evidence.leaf[0:4])) != reading.segment || (claim.exact && distance != 0);
    }

    function _readProfile(Reading memory reading, Claim memory claim, OpenEvidence calldata evidence) private view {
        _openRecord(0x06, evidence.leaf, PROFILE_BYTES, reading.leaf, claim, evidence.leafProof);
        Facts memory facts = reading.facts;
        facts.endRoot = bytes32(evidence.leaf[4:36]);
        facts.noisyRoot = bytes32(evidence.leaf[36:68]);
        if (reading.leaf == 0) {
            facts.startRoot = claim.initialRoot;
            facts.thresholdRoot = Trees.zeroTensorRoot(evidence.header.states());
        } else {
            _openRecord(0x06, evidence.previous, PROFILE_BYTES, reading.leaf - 1, claim, evidence.previousProof);
            facts.startRoot = bytes32(evidence.previous[4:36]);
            facts.thresholdRoot = bytes32(evidence.previous[68:100]);
        }
        Part part = reading.part;
        if (part == Part.End) reading.claimed = facts.endRoot;
        else if (part == Part.NoisyEnd) reading.claimed = facts.noisyRoot;
        else if (part == Part.Threshold) reading.claimed = bytes32(evidence.leaf[68:100]);
        else if (part == Part.Separation) reading.claimed = Trees.scalarRoot(uint32(bytes4(evidence.leaf[100:104])));
        else if (part == Part.Trace) reading.claimed = bytes32(evidence.leaf[104:136]);
        else revert NoSuchPart(claim.kind, part);
        reading.refuted = uint32(bytes4(evidence.leaf[0:4])) != reading.segment;
    }

    /// @dev The claim itself says all there is: its only leaf is its root.
    function _readStage(Reading memory reading, Claim memory claim) private pure {
        if (reading.part != Part.End) revert NoSuchPart(claim.kind, reading.part);
        reading.claimed = claim.root;
        reading.facts.endRoot = claim.root;
        reading.facts.startRoot = claim.initialRoot;
    }

    function _openRecord(
        uint8 domain,
        bytes calldata text,
        uint256 size,
        uint32 leaf,
        Claim memory claim,
        bytes32[] calldata proof
    ) private view {
        if (text.length != size) revert Trees.WrongLength(text.length, size);
        bytes32 hash = sha256(abi.encodePacked(domain, text));
        Trees.verify(hash, leaf, Trees.depthOf(claim.leaves), proof, claim.root);
    }

    function _openState(bytes calldata text, uint256 index, uint256 depth, bytes32[] calldata proof, bytes32 root)
        private
        view
        returns (bytes32 state)
    {
        if (text.length != 32) revert Trees.WrongLength(text.length, 32);
        state = bytes32(text);
        Trees.verify(state, index, depth, proof, root);
    }
}
