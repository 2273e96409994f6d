// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Posting} from "../interfaces/IMarket.sol";
import {Headers, SectionHeader} from "./Headers.sol";
import {Ranges} from "./Ranges.sol";

/// @notice What a deployment demands of a posting at least, out of its `Parameters`.
/// @param fee Lowest fee of a round, in wei.
/// @param feePerTerawork What it rises by for 10^12 units of work, in wei.
/// @param trainSeconds Shortest time for training, whatever the work.
/// @param trainingPerSecond Units of work in a further second of it.
struct Floors {
    uint256 fee;
    uint256 feePerTerawork;
    uint256 trainSeconds;
    uint256 trainingPerSecond;
}

/// @title Postings
/// @notice What makes a posting one that can be trained, verified and judged, and how much work there is in it.
library Postings {
    /// @notice Format and arithmetic version of the programs that can be judged.
    uint16 internal constant FORMAT = 1;
    uint16 internal constant ARITHMETIC = 1;
    /// @notice Most verifiers of a task, and most segments of one share.
    uint256 internal constant MOST_VERIFIERS = 8;
    uint256 internal constant MOST_SEGMENTS = 16;

    error WrongHeader(uint256 length);
    error WrongVersion(uint16 format, uint16 arithmetic);

    /// @notice Reverts unless the posting is well-formed and offers no less than the floors.
    /// @return replayWork Units of work of one verifier's share.
    /// @return profileWork Units of work of the profile; zero in exact mode.
    function check(Posting calldata posting, Floors memory floors)
        internal
        pure
        returns (uint256 replayWork, uint256 profileWork)
    {
        uint256[4] memory work = _works(posting.header, posting.exact ? 1 : 4);
        // INVARIANT: a malformed task is refused before anything is held for it.
        Ranges.check("tensors of the state", Headers.states(posting.header), 1, 1 << 20);
        Ranges.check("steps", posting.steps, 1, type(uint32).max);
        Ranges.check("interval", posting.interval, 1, posting.steps);
        uint256 segments = segmentsOf(posting);
        Ranges.check("segments", segments, 1, 1 << 24);
        Ranges.check("verifiers", posting.verifiers, 1, MOST_VERIFIERS);
        Ranges.check("segments of a share", posting.perVerifier, 1, MOST_SEGMENTS);
        // INVARIANT: shares are disjoint.
        Ranges.check("drawn segments", uint256(posting.verifiers) * posting.perVerifier, 1, segments);
        // INVARIANT: windows and limits are computed without overflow.
        replayWork = posting.perVerifier * (uint256(posting.interval) * work[0] + work[1]);
        Ranges.check("work of a share", replayWork, 0, type(uint80).max);
        Ranges.check("verifierFee", posting.verifierFee, lowestFee(floors, replayWork), type(uint88).max);
        if (posting.exact) {
            Ranges.check("profileSegments", posting.profileSegments, 0, 0);
            Ranges.check("profilerFee", posting.profilerFee, 0, 0);
        } else {
            Ranges.check("profileSegments", posting.profileSegments, 1, segments < MOST_SEGMENTS ? segments : MOST_SEGMENTS);
            profileWork = posting.profileSegments * (uint256(posting.interval) * (work[0] + work[2]) + work[3]);
            Ranges.check("work of the profile", profileWork, 0, type(uint80).max);
            Ranges.check("profilerFee", posting.profilerFee, lowestFee(floors, profileWork), type(uint88).max);
        }
        Ranges.check("highestReward", posting.highestReward, posting.lowestReward, type(uint88).max);
        // INVARIANT: no posting asks for training faster than the deployment's devices can.
        uint256 shortest = floors.trainSeconds + (uint256(posting.steps) * work[0]) / floors.trainingPerSecond;
        Ranges.check("trainSeconds", posting.trainSeconds, shortest, type(uint32).max);
    }

    /// @dev Units of work of the header's sections, by their roles.
    /// @param sections How many the task's mode needs.
    function _works(bytes calldata header, uint256 sections) private pure returns (uint256[4] memory work) {
        // INVARIANT: the header is exactly one of a program with the sections its mode needs, so that every later use finds them.
        if (header.length != Headers.FIXED_BYTES + Headers.SECTION_BYTES * sections || Headers.sections(header) != sections) {
            revert WrongHeader(header.length);
        }
        uint16 format = uint16(bytes2(header[0:2]));
        uint16 arithmetic = uint16(bytes2(header[2:4]));
        // INVARIANT: this deployment judges only what it can execute.
        if (format != FORMAT || arithmetic != ARITHMETIC) revert WrongVersion(format, arithmetic);
        for (uint256 place = 0; place < sections; place++) {
            SectionHeader memory section = Headers.sectionAt(header, place);
            Ranges.check("role", Headers.roleAt(header, place), place, place);
            Ranges.check("operators", section.operators, 1, type(uint32).max);
            work[place] = section.work;
        }
    }

    /// @notice Number of segments; the last may be shorter.
    function segmentsOf(Posting calldata posting) internal pure returns (uint32) {
        return uint32((uint256(posting.steps) + posting.interval - 1) / posting.interval);
    }

    /// @notice Lowest fee of a round with so much work, in wei.
    function lowestFee(Floors memory floors, uint256 work) internal pure returns (uint256) {
        return floors.fee + (work * floors.feePerTerawork) / 1e12;
    }
}
