// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Trees} from "./Trees.sol";

/// @notice The part of a claim's leaf that the challenger denies, everything else in it being granted.
enum Part {
    End, // the state after the segment's last step (the clean run's, in a profile)
    NoisyEnd, // the state after the noisy run's last step (profile)
    Distance, // the distance, computed from the granted end state (replay, tolerant mode)
    Threshold, // the new threshold vector (profile)
    Separation, // the separation (profile)
    Trace // the trace root (replay: of the clean run, profile: of the noisy run)
}

/// @notice What a case waits for. The claimant's clock runs in Expand, Reveal and Prove, the challenger's in Choose.
enum Phase {
    None,
    Expand,
    Reveal,
    Choose,
    Prove,
    Closed
}

/// @notice The tree a case is in, from the claim's leaf downwards.
enum Tree {
    Segment, // state roots after each step
    Trace, // trace chunks of each step
    Operators, // output roots of the operators of one step, or of the distance or deviation section
    NextState, // tensor roots of the state after the step
    Tensor, // chunks of one operator's output
    Sums // chunks of the partial sums of one element of a fold
}

/// @notice Where a case stands. One storage slot, as `PackedCursor`.
/// @param phase What is awaited.
/// @param tree The tree the disputed node belongs to.
/// @param levels Levels of that tree below the disputed node; 0: the node is a leaf.
/// @param shown How many of them the last reveal showed.
/// @param index Place of the disputed node in its level; the term's number once a partial sum was chosen.
/// @param step Step in the segment.
/// @param operator Operator in its section.
/// @param element Element of that operator's output.
/// @param elements Number of elements of that output.
/// @param terms Terms of the operator's fold, 1 if it has none.
/// @param value The 32 bits claimed for the disputed element or partial sum.
struct Cursor {
    Phase phase;
    Tree tree;
    uint8 levels;
    uint8 shown;
    uint32 index;
    uint32 step;
    uint32 operator;
    uint32 element;
    uint32 elements;
    uint32 terms;
    uint32 value;
}

/// @notice A cursor in one word: its fields in their order, from the highest bits down.
type PackedCursor is uint256;

/// @notice What opening a case proved about its claim and leaf. The case keeps its hash; moves that need it bring it along.
/// @param programRoot Root of the program.
/// @param dataRoot Root of the data.
/// @param startRoot State before the segment's first step, granted by the challenger.
/// @param endRoot State after the (clean) run, as claimed.
/// @param noisyRoot State after the noisy run, as claimed (profile).
/// @param comparedRoot The solver's checkpoint at the end of the segment (part Distance).
/// @param thresholdRoot The threshold vector read: the task's (part Distance), the one so far (profile).
/// @param taskSeed Seed of everything random in the program.
struct Facts {
    bytes32 programRoot;
    bytes32 dataRoot;
    bytes32 startRoot;
    bytes32 endRoot;
    bytes32 noisyRoot;
    bytes32 comparedRoot;
    bytes32 thresholdRoot;
    uint64 taskSeed;
}

/// @notice One challenger against one leaf of one claim.
struct Case {
    // Who and what.
    address challenger;
    uint32 leaf;
    uint32 steps; // of the segment
    Part part;
    bool noisy; // whether the run in dispute is a profile's noisy one
    // The claimant and the clocks, in seconds.
    address claimant;
    uint24 claimantLeft;
    uint24 challengerLeft;
    uint40 movedAt;
    // Where the case stands.
    PackedCursor cursor;
    bytes32 node; // the disputed node
    // Constants of the case.
    uint256 claimId;
    bytes32 factsHash;
    bytes32 claimed; // the root that the part denied was claimed to be
    bytes32 operatorsRoot; // sum tree of the section's operators
    uint32 operators; // their number
    uint32 states; // tensors of the state
    uint32 firstStep; // global number of the segment's first step
    uint64 drawSeed;
    // The trace value in dispute (part Trace), and clock extensions used.
    uint8 tracePlace;
    uint32 traceValue;
    uint24 claimantOvershoot;
    uint24 challengerOvershoot;
}

/// @title Cases
/// @notice Predicates and clocks of one case.
library Cases {
    /// @notice A move came after its side's clock had run out: only a timeout is possible now.
    error ClockExpired(uint256 deadline, uint256 nowAt);

    /// @notice A timeout was called while the clock still runs.
    error ClockRunning(uint256 deadline, uint256 nowAt);

    /// @notice The cursor in one word.
    function pack(Cursor memory cursor) internal pure returns (PackedCursor) {
        uint256 word = uint256(cursor.phase);
        word = (word << 8) | uint256(cursor.tree);
        word = (word << 8) | cursor.levels;
        word = (word << 8) | cursor.shown;
        word = (word << 32) | cursor.index;
        word = (word << 32) | cursor.step;
        word = (word << 32) | cursor.operator;
        word = (word << 32) | cursor.element;
        word = (word << 32) | cursor.elements;
        word = (word << 32) | cursor.terms;
        return PackedCursor.wrap((word << 32) | cursor.value);
    }

    /// @notice The cursor out of its word.
    function unpack(PackedCursor packed) internal pure returns (Cursor memory cursor) {
        uint256 word = PackedCursor.unwrap(packed);
        cursor.phase = Phase(word >> 248);
        cursor.tree = Tree(uint8(word >> 240));
        cursor.levels = uint8(word >> 232);
        cursor.shown = uint8(word >> 224);
        cursor.index = uint32(word >> 192);
        cursor.step = uint32(word >> 160);
        cursor.operator = uint32(word >> 128);
        cursor.element = uint32(word >> 96);
        cursor.elements = uint32(word >> 64);
        cursor.terms = uint32(word >> 32);
        cursor.value = uint32(word);
    }

    /// @notice What the case waits for.
    function phaseOf(Case storage self) internal view returns (Phase) {
        return Phase(PackedCursor.unwrap(self.cursor) >> 248);
    }

    /// @notice Whether the case exists and is not decided.
    function isOpen(Case storage self) internal view returns (bool) {
        Phase phase = phaseOf(self);
        return phase != Phase.None && phase != Phase.Closed;
    }

    /// @notice Whether it is the challenger's turn.
    function isChallengersTurn(Case storage self) internal view returns (bool) {
        return phaseOf(self) == Phase.Choose;
    }

    /// @notice The last second of the side in turn: its own time, or the extension if that is longer.
    function deadline(Case storage self, uint256 extension) internal view returns (uint256) {
        uint256 left = isChallengersTurn(self) ? self.challengerLeft : self.claimantLeft;
        return self.movedAt + (left > extension ? left : extension);
    }

    /// @notice Stops the clock of the side in turn. What it used beyond its own time is noted, to be charged at the end.
    function stopClock(Case storage self, uint256 extension) internal {
        bool challenger = isChallengersTurn(self);
        uint256 left = challenger ? self.challengerLeft : self.claimantLeft;
        uint256 limit = self.movedAt + (left > extension ? left : extension);
        // INVARIANT: a side whose clock is out can only lose.
        if (block.timestamp > limit) revert ClockExpired(limit, block.timestamp);
        uint256 used = block.timestamp - self.movedAt;
        uint256 over;
        if (used > left) {
            over = used - left;
            left = 0;
        } else {
            left -= used;
        }
        self.movedAt = uint40(block.timestamp);
        // `left` was a uint24 and only shrank; `over` is at most the extension, and the sum saturates.
        if (challenger) self.challengerLeft = uint24(left);
        else self.claimantLeft = uint24(left);
        if (over != 0) _addOvershoot(self, challenger, over);
    }

    function _addOvershoot(Case storage self, bool challenger, uint256 over) private {
        uint256 sum = over + (challenger ? self.challengerOvershoot : self.claimantOvershoot);
        if (sum > type(uint24).max) sum = type(uint24).max;
        if (challenger) self.challengerOvershoot = uint24(sum);
        else self.claimantOvershoot = uint24(sum);
    }

    /// @notice Role of the section whose operators the case is about.
    function role(Case storage self) internal view returns (uint8) {
        Part part = self.part;
        if (part == Part.Distance) return 1;
        if (part == Part.Threshold || part == Part.Separation) return 3;
        return self.noisy ? 2 : 0;
    }

    /// @notice Leaves of the tree that the case is in.
    function leavesOf(Case storage self, Cursor memory cursor) internal view returns (uint256) {
        Tree tree = cursor.tree;
        if (tree == Tree.Segment || tree == Tree.Trace) return self.steps;
        if (tree == Tree.Operators) return self.operators;
        if (tree == Tree.NextState) return self.states;
        return Trees.chunksOf(tree == Tree.Tensor ? cursor.elements : cursor.terms);
    }

    /// @notice The place that an expansion of the tree that the case is in is for: it says which claim and leaf, and where below it.
    function place(Case storage self, Cursor memory cursor) internal view returns (bytes32) {
        if (cursor.tree == Tree.Segment) return segmentPlace(self);
        return cursor.tree == Tree.Operators ? operatorsPlace(self, cursor) : sumsPlace(self, cursor);
    }

    /// @notice Place of the segment tree of the run in dispute.
    function segmentPlace(Case storage self) internal view returns (bytes32) {
        return keccak256(abi.encode(Tree.Segment, self.claimId, self.leaf, self.noisy));
    }

    /// @notice Place of the operators' outputs in the step in dispute.
    function operatorsPlace(Case storage self, Cursor memory cursor) internal view returns (bytes32) {
        return keccak256(abi.encode(Tree.Operators, self.claimId, self.leaf, role(self), cursor.step));
    }

    /// @notice Place of the partial sums of the element in dispute.
    function sumsPlace(Case storage self, Cursor memory cursor) internal view returns (bytes32) {
        return keccak256(
            abi.encode(
                Tree.Sums, self.claimId, self.leaf, role(self), cursor.step, cursor.operator, cursor.element
            )
        );
    }

    /// @notice Names the state of play: every move says which one it answers, so that it cannot land on another after a reorganisation.
    function position(Case storage self, uint256 caseId) internal view returns (bytes32) {
        return keccak256(abi.encode(caseId, self.node, self.cursor));
    }
}
