// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Claim} from "./interfaces/IClaims.sol";
import {
    IProver,
    OpenEvidence,
    OperatorEvidence,
    Question,
    Reading,
    StateEvidence
} from "./interfaces/IProver.sol";
import {Facts, Part} from "./libraries/Cases.sol";
import {DisputedLeaf} from "./libraries/DisputedLeaf.sol";
import {Headers} from "./libraries/Headers.sol";
import {Context, Operand, Operator, Operators} from "./libraries/Operators.sol";
import {Opening, Place, Trees} from "./libraries/Trees.sol";

/// @title Prover
/// @notice Reads the leaf that a case is about, and executes the one scalar operation it comes down to. No state, no rights.
/// @dev A contract of its own for its size: it holds the whole arithmetic.
contract Prover is IProver {
    using Headers for bytes;
    using Operators for Operator;

    uint256 internal constant FOLD_ARGMAX = 0x43;
    uint256 internal constant GATHER = 0x60;

    /// @dev The operation in the making.
    struct Execution {
        Operator operator;
        Context context;
        uint256 element;
        uint256 term;
        uint32 previous;
        uint32[4] values;
    }

    /// @inheritdoc IProver
    function read(Claim calldata claim, uint32 segment, uint32 leaf, Part part, OpenEvidence calldata evidence)
        external
        view
        returns (Reading memory)
    {
        return DisputedLeaf.read(claim, segment, leaf, part, evidence);
    }

    /// @inheritdoc IProver
    function execute(
        Question calldata question,
        Facts calldata facts,
        bytes calldata header,
        OperatorEvidence calldata evidence
    ) external view returns (uint32) {
        Trees.verifyRecord(
            evidence.operator, question.cursor.operator, question.operators, question.operatorsRoot
        );
        Execution memory run;
        run.operator = Operators.decode(evidence.operator.record);
        run.context = Context({taskSeed: facts.taskSeed, step: question.firstStep + question.cursor.step});
        run.element = question.cursor.element;
        uint256 terms = question.cursor.terms;
        if (terms > 1) run.term = question.cursor.index;
        if (run.term != 0) {
            Place memory sums = Place(question.sumsRoot, 0, 0);
            run.previous = Trees.openElement(evidence.previous, run.term - 1, terms, sums);
        }

        _readOperands(run, question, facts, header, evidence.operands);
        return run.operator.evaluate(run.values, run.previous, run.element, run.term, run.context);
    }

    function _readOperands(
        Execution memory run,
        Question calldata question,
        Facts calldata facts,
        bytes calldata header,
        Opening[] calldata openings
    ) private view {
        uint256 count = _readsLeader(run) ? 2 : run.operator.operands.length;
        if (openings.length != count) revert WrongOperands(openings.length, count);
        // From the last to the first: a gather's row is its second operand.
        while (count != 0) {
            --count;
            (bool opened, uint256 position, Operand memory operand) = _locate(run, count);
            if (opened) {
                run.values[count] = Trees.openElement(
                    openings[count], position, operand.count, _placeOf(question, facts, header, operand)
                );
            }
        }
    }

    /// @dev A running first maximum also reads the operand at the term that led before the disputed one.
    function _readsLeader(Execution memory run) private pure returns (bool) {
        return run.operator.body == FOLD_ARGMAX && run.term != 0;
    }

    /// @dev Where value `number` has to be opened; if it does not, it is written already.
    function _locate(Execution memory run, uint256 number)
        private
        pure
        returns (bool opened, uint256 position, Operand memory operand)
    {
        bool isLeader = number == 1 && _readsLeader(run);
        int256 row = run.operator.body == GATHER ? int256(int32(run.values[1])) : int256(0);
        uint256 term = isLeader ? run.previous : run.term;
        if (isLeader) number = 0;
        operand = run.operator.operands[number];
        uint32 bits;
        (opened, bits, position) = run.operator.operand(number, run.element, term, run.context, row);
        if (!opened) run.values[isLeader ? 1 : number] = bits;
    }

    /// @inheritdoc IProver
    function nextState(
        Question calldata question,
        Facts calldata facts,
        bytes calldata header,
        StateEvidence calldata evidence
    ) external view returns (bytes32) {
        uint256 depth = Trees.depthOf(header.states());
        bytes32 entry = sha256(
            abi.encodePacked(bytes1(0x04), evidence.kind, evidence.index, evidence.elementType, evidence.count)
        );
        Trees.verify(
            entry, question.cursor.index, depth, evidence.tableProof, header.section(question.role).tableRoot
        );
        if (evidence.kind == 1) {
            Place memory place = _stateBefore(question, facts, question.cursor.step, evidence.index, depth);
            Trees.verify(evidence.source, place.tensorIndex, place.depth, evidence.sourceProof, place.root);
        } else if (evidence.kind == 2) {
            depth = Trees.depthOf(question.operators);
            Trees.verify(evidence.source, evidence.index, depth, evidence.sourceProof, question.outputsRoot);
        } else {
            revert MalformedProgram(evidence.kind);
        }
        return evidence.source;
    }

    function _placeOf(
        Question calldata question,
        Facts calldata facts,
        bytes calldata header,
        Operand memory operand
    ) private pure returns (Place memory) {
        uint256 source = operand.source;
        uint256 index = operand.index;
        if (source == Operators.OPERATOR) {
            return Place(question.outputsRoot, index, Trees.depthOf(question.operators));
        }
        if (source == Operators.DATA) {
            return Place(facts.dataRoot, index, Trees.depthOf(header.dataTensors()));
        }
        if (source == Operators.CONSTANT) {
            return Place(header.constantRoot(), index, Trees.depthOf(header.constants()));
        }
        if (source == Operators.THRESHOLD) return Place(facts.thresholdRoot, 0, 0);
        uint256 depth = Trees.depthOf(header.states());
        if (source == Operators.STATE) {
            bool afterRun = question.role == 1 || question.role == 3;
            if (afterRun) return Place(facts.endRoot, index, depth);
            return _stateBefore(question, facts, question.cursor.step, index, depth);
        }
        if (source == Operators.COMPARED) return Place(facts.comparedRoot, index, depth);
        if (source == Operators.START) return Place(facts.startRoot, index, depth);
        if (source == Operators.NOISY) return Place(facts.noisyRoot, index, depth);
        if (source == Operators.PENULTIMATE) {
            return _stateBefore(question, facts, question.steps - 1, index, depth);
        }
        revert MalformedProgram(source);
    }

    /// @dev The state that a step starts from: the left neighbour in the segment tree, granted by the challenger, or the segment's start.
    function _stateBefore(
        Question calldata question,
        Facts calldata facts,
        uint256 step,
        uint256 index,
        uint256 depth
    ) private pure returns (Place memory) {
        if (step == 0) return Place(facts.startRoot, index, depth);
        return Place(question.segmentRoot, index | ((step - 1) << depth), depth + Trees.depthOf(question.steps));
    }
}
