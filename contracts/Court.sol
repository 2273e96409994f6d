// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Claim, ClaimKind, IClaims} from "./interfaces/IClaims.sol";
import {ICourt} from "./interfaces/ICourt.sol";
import {
    IProver,
    OpenEvidence,
    OperatorEvidence,
    Question,
    Reading,
    StateEvidence
} from "./interfaces/IProver.sol";
import {IRefuter, RefutationEvidence} from "./interfaces/IRefuter.sol";
import {Case, Cases, Cursor, Facts, Part, Phase, Tree} from "./libraries/Cases.sol";
import {Draws} from "./libraries/Draws.sol";
import {Headers, SectionHeader} from "./libraries/Headers.sol";
import {Operators} from "./libraries/Operators.sol";
import {RecordOpening, Trees} from "./libraries/Trees.sol";

/// @title Court
/// @notice Decides disputes about claims by a walk down the tree of a deterministic execution, to one scalar operation
/// that is executed here. Rules and money: contracts/SPECIFICATION.md; bytes: contracts/FORMAT.md.
///
/// The claimant shows levels of a tree below the disputed node (expand, reveal); the challenger names the leftmost node it
/// disagrees with (choose). Left of it everything is granted, so that what the disputed value was computed from can be opened
/// under hashes already on chain (prove). A wrong opening, or too little gas, reverts: only an executed result, two hashes
/// that must be equal, or a clock decide a case.
contract Court is ICourt {
    using Cases for Case;
    using Headers for bytes;

    /* CONSTANTS */

    /// @notice Levels shown by the reveal that goes with an expansion, which also pays for a new storage slot.
    /// @dev A move stays below `MOVE_GAS` with 3 levels here and 5 in plain reveals; 4 and 6 do not.
    uint256 public constant FIRST_LEVELS = 3;

    /// @notice Levels shown by a reveal.
    uint256 public constant LEVELS = 5;

    /// @notice Values of one step's trace.
    uint256 public constant TRACE_VALUES = 64;

    /// @notice Bytes of one step's trace.
    uint256 internal constant TRACE_BYTES = 4 * TRACE_VALUES;

    /// @notice The most gas of a move, as measured, and of the last one.
    uint256 public constant MOVE_GAS = 90_000;
    uint256 public constant PROVE_GAS = 500_000;

    /// @notice The most moves of one side over a program of 2^18 operators and tensors of 2^31 elements in segments of 2^20 steps.
    uint256 public constant MOVES_A_SIDE = 28;

    /* IMMUTABLES */

    /// @notice Keeper of the claims.
    IClaims public immutable CLAIMS;

    /// @notice Executes the last operation of a case.
    IProver public immutable PROVER;

    /// @notice Judges refutations of programs.
    IRefuter public immutable REFUTER;

    /// @notice Seconds on each side's clock.
    uint24 public immutable ALLOWANCE;

    /// @notice Seconds a side has for a move, at least, even with its clock spent.
    uint24 public immutable EXTENSION;

    /// @notice Price, in wei, of each second used beyond the own clock.
    uint256 public immutable OVERSHOOT_PRICE;

    /// @notice The bond a case needs: the other side's worst case in gas, at the price fixed at deployment.
    uint256 public immutable MINIMUM_BOND;

    /* STORAGE */

    mapping(uint256 caseId => Case) internal _cases;

    /// @notice Roots that claimants committed to: of segment trees, operator trees and partial sums. An expansion is made once for
    /// a claim and a place in it, and binds all cases on that claim.
    mapping(bytes32 place => bytes32 root) public expansions;

    /// @notice Whether an account may move for a party.
    mapping(address party => mapping(address delegate => bool)) public isDelegate;

    /// @notice Cases opened by an account, so that the ids of its cases differ.
    mapping(address challenger => uint256) public casesOpened;

    /* CONSTRUCTOR */

    /// @param gasPrice Wei that a unit of gas may cost the other side, for the bond.
    constructor(
        IClaims claims,
        IProver prover,
        IRefuter refuter,
        uint24 allowance,
        uint24 extension,
        uint256 gasPrice,
        uint256 overshootPrice
    ) {
        CLAIMS = claims;
        PROVER = prover;
        REFUTER = refuter;
        ALLOWANCE = allowance;
        EXTENSION = extension;
        OVERSHOOT_PRICE = overshootPrice;
        MINIMUM_BOND = (MOVES_A_SIDE * MOVE_GAS + PROVE_GAS) * gasPrice;
    }

    /* OPENING */

    /// @inheritdoc ICourt
    function setDelegate(address delegate, bool allowed) external {
        isDelegate[msg.sender][delegate] = allowed;
        emit DelegateSet(msg.sender, delegate, allowed);
    }

    /// @inheritdoc ICourt
    function open(uint256 claimId, uint32 leaf, Part part, bytes32 answerRoot, OpenEvidence calldata evidence)
        external
        payable
        returns (uint256 caseId)
    {
        // INVARIANT: the bond covers what the other side may have to spend.
        if (msg.value < MINIMUM_BOND) revert BondTooSmall(msg.value, MINIMUM_BOND);
        Claim memory claim = CLAIMS.claim(claimId);
        // Not a counter over all cases: after a reorganisation an id must not mean another case.
        caseId = uint256(
            keccak256(
                abi.encode(
                    block.chainid, address(this), claimId, claim.root, msg.sender, leaf, part, casesOpened[msg.sender]++
                )
            )
        );
        Case storage self = _cases[caseId];
        // Leaf c of a checkpoint tree ends segment c - 1; leaf 0 is nobody's claim.
        if (claim.kind == ClaimKind.Training && leaf == 0) revert InitialState(claimId);
        uint32 segment = claim.kind == ClaimKind.Training ? leaf - 1 : CLAIMS.segmentOf(claimId, leaf);
        Reading memory reading = PROVER.read(claim, segment, leaf, part, evidence);
        self.claimId = claimId;
        _writeCase(self, claim, reading);
        evidence.header.verify(claim.programRoot);
        _writeSection(self, evidence.header);
        emit CaseOpened(
            caseId,
            claimId,
            msg.sender,
            claim.claimant,
            leaf,
            part,
            answerRoot,
            self.position(caseId),
            reading.facts
        );
        CLAIMS.caseOpened{value: msg.value}(caseId, claimId, msg.sender, answerRoot);
        if (reading.refuted) _close(self, caseId, true);
    }

    function _writeCase(Case storage self, Claim memory claim, Reading memory reading) private {
        uint32 first = reading.segment * claim.interval;
        uint32 steps = claim.steps - first < claim.interval ? claim.steps - first : claim.interval;
        Part part = reading.part;
        self.challenger = msg.sender;
        self.leaf = reading.leaf;
        self.steps = steps;
        self.part = part;
        self.noisy = claim.kind == ClaimKind.Profile && (part == Part.NoisyEnd || part == Part.Trace);
        self.claimant = claim.claimant;
        self.claimantLeft = ALLOWANCE;
        self.challengerLeft = ALLOWANCE;
        self.movedAt = uint40(block.timestamp);
        self.factsHash = keccak256(abi.encode(reading.facts));
        self.claimed = reading.claimed;
        self.firstStep = first;
        self.drawSeed = claim.drawSeed;
        self.node = reading.claimed;

        Cursor memory cursor;
        cursor.phase = Phase.Expand;
        // A segment of one step has no tree to show: its only leaf is the end state.
        if (part != Part.Distance && steps > 1) cursor.tree = Tree.Segment;
        else if (part == Part.Trace) (cursor.phase, cursor.tree) = (Phase.Reveal, Tree.Trace);
        else cursor.tree = Tree.Operators;
        self.cursor = Cases.pack(cursor);
    }

    function _writeSection(Case storage self, bytes calldata header) private {
        SectionHeader memory section = header.section(self.role());
        self.operatorsRoot = section.root;
        self.operators = section.operators;
        self.states = header.states();
    }

    /* CLAIMANT'S MOVES */

    /// @inheritdoc ICourt
    function expand(uint256 caseId, bytes32 position_, bytes32 root, bytes calldata shown) external {
        Case storage self = _cases[caseId];
        Cursor memory cursor = _begin(self, caseId, position_, Phase.Expand);
        _onlyParty(self.claimant);
        bytes32 place = self.place(cursor);
        bytes32 bound = expansions[place];
        // INVARIANT: a claimant shows one tree for a place of its claim, whoever asks.
        if (bound == 0) expansions[place] = root;
        else if (bound != root) revert ExpansionBound(bound, root);

        self.node = root;
        if (cursor.tree == Tree.Segment) {
            cursor.levels = uint8(Trees.depthOf(self.steps));
            Part part = self.part;
            if (part == Part.Threshold || part == Part.Separation) {
                // The deviation reads the state before the last step: the tree is only bound here, and what follows is the section's own.
                cursor.tree = Tree.Operators;
                _showNothing(cursor, shown, Phase.Expand);
                _end(self, cursor);
                emit Expanded(caseId, root, shown, self.position(caseId));
                return;
            }
            if (part == Part.Trace) {
                cursor.tree = Tree.Trace;
                self.node = self.claimed;
            }
        } else if (cursor.tree == Tree.Operators) {
            cursor.levels = uint8(Trees.depthOf(self.operators));
        } else {
            cursor.levels = uint8(Trees.depthOf(Trees.chunksOf(cursor.terms)));
        }
        cursor.index = 0;
        // A single chunk is a reveal of its own, to keep this move small.
        if (cursor.levels == 0 && cursor.tree == Tree.Sums) _showNothing(cursor, shown, Phase.Reveal);
        else _show(self, cursor, shown, FIRST_LEVELS);
        _end(self, cursor);
        emit Expanded(caseId, root, shown, self.position(caseId));
    }

    /// @inheritdoc ICourt
    function reveal(uint256 caseId, bytes32 position_, bytes calldata shown) external {
        Case storage self = _cases[caseId];
        Cursor memory cursor = _begin(self, caseId, position_, Phase.Reveal);
        _show(self, cursor, shown, LEVELS);
        _end(self, cursor);
        emit Revealed(caseId, shown, self.position(caseId));
    }

    function _showNothing(Cursor memory cursor, bytes calldata shown, Phase next) private pure {
        if (shown.length != 0) revert Trees.WrongLength(shown.length, 0);
        cursor.phase = next;
    }

    /// @dev Checks what is shown below the disputed node: hashes, or the bytes of a chunk. From here it is the challenger's turn.
    function _show(Case storage self, Cursor memory cursor, bytes calldata shown, uint256 most) private view {
        bytes32 node = self.node;
        bytes32 found;
        cursor.phase = Phase.Choose;
        cursor.shown = uint8(cursor.levels < most ? cursor.levels : most);
        bool isChunk = cursor.levels == 0 && cursor.tree != Tree.Operators;
        if (isChunk) {
            uint256 size = cursor.tree == Tree.Trace ? TRACE_BYTES : Trees.CHUNK_BYTES;
            if (shown.length != size) revert Trees.WrongLength(shown.length, size);
            found = Trees.chunkLeaf(shown);
        } else {
            found = Trees.nodeAbove(shown, cursor.shown);
        }
        if (found != node) revert Trees.WrongHash(found, node);
    }

    /* CHALLENGER'S MOVES */

    /// @inheritdoc ICourt
    function choose(uint256 caseId, bytes32 position_, uint32 place, bytes32 child, bytes32[] calldata proof)
        external
    {
        Case storage self = _cases[caseId];
        Cursor memory cursor = _begin(self, caseId, position_, Phase.Choose);
        bool won = _descend(self, cursor, place, child, proof);
        if (!won && cursor.levels == 0) {
            Tree tree = cursor.tree;
            if (tree == Tree.Operators) revert RecordNeeded(cursor.index);
            if (tree == Tree.Segment) {
                cursor.step = cursor.index;
                // The last leaf must be the end state that was claimed.
                won = cursor.step == self.steps - 1 && child != self.claimed;
                (cursor.phase, cursor.tree) = (Phase.Expand, Tree.Operators);
            } else if (tree == Tree.NextState) {
                cursor.phase = Phase.Prove;
            } else if (tree == Tree.Trace) {
                cursor.step = cursor.index;
            }
        }
        _endChoice(self, caseId, cursor, won);
    }

    /// @inheritdoc ICourt
    function chooseOperator(
        uint256 caseId,
        bytes32 position_,
        uint32 place,
        bytes32 child,
        bytes32[] calldata proof,
        RecordOpening calldata operator
    ) external {
        Case storage self = _cases[caseId];
        Cursor memory cursor = _begin(self, caseId, position_, Phase.Choose);
        if (cursor.tree != Tree.Operators || cursor.levels > cursor.shown) revert NotALeaf(cursor.tree, cursor.levels);
        bool won = _descend(self, cursor, place, child, proof);
        if (!won) {
            uint32 operators = self.operators;
            Trees.verifyRecord(operator, cursor.index, operators, self.operatorsRoot);
            cursor.operator = cursor.index;
            (, uint256 elements, uint256 terms) = Operators.shapeOf(operator.record);
            (cursor.elements, cursor.terms) = (uint32(elements), uint32(terms));
            // What the section gives out must be what was claimed of it.
            uint256 fromEnd = operators - 1 - cursor.operator;
            Part part = self.part;
            bool isOutput = part == Part.Threshold
                ? fromEnd == 1
                : fromEnd == 0 && (part == Part.Distance || part == Part.Separation);
            won = isOutput && child != self.claimed;
            cursor.tree = Tree.Tensor;
            cursor.phase = Phase.Reveal;
            cursor.levels = uint8(Trees.depthOf(Trees.chunksOf(cursor.elements)));
            cursor.index = 0;
        }
        _endChoice(self, caseId, cursor, won);
    }

    /// @inheritdoc ICourt
    function chooseNextState(uint256 caseId, bytes32 position_, bytes32 stateRoot, bytes32[] calldata proof) external {
        Case storage self = _cases[caseId];
        Cursor memory cursor = _begin(self, caseId, position_, Phase.Choose);
        _onlyParty(self.challenger);
        Part part = self.part;
        bool atOperators = cursor.tree == Tree.Operators && cursor.levels == Trees.depthOf(self.operators);
        if (!atOperators || (part != Part.End && part != Part.NoisyEnd)) revert NoNextState(part, cursor.tree);
        // The disputed leaf of the segment tree; the operator tree took its place as the disputed node.
        uint256 depth = Trees.depthOf(self.steps);
        Trees.verify(stateRoot, cursor.step, depth, proof, _segmentRoot(self, self.claimed));
        cursor.tree = Tree.NextState;
        cursor.phase = Phase.Reveal;
        cursor.levels = uint8(Trees.depthOf(self.states));
        cursor.index = 0;
        if (cursor.levels == 0) cursor.phase = Phase.Prove;
        self.node = stateRoot;
        _endChoice(self, caseId, cursor, false);
    }

    /// @inheritdoc ICourt
    function chooseElement(uint256 caseId, bytes32 position_, uint32 place, bytes calldata chunk) external {
        Case storage self = _cases[caseId];
        Cursor memory cursor = _begin(self, caseId, position_, Phase.Choose);
        _onlyParty(self.challenger);
        Tree tree = cursor.tree;
        bool isChunk = cursor.levels == 0 && (tree == Tree.Tensor || tree == Tree.Sums || tree == Tree.Trace);
        if (!isChunk) revert NotAChunk(tree, cursor.levels);
        uint256 size = tree == Tree.Trace ? TRACE_BYTES : Trees.CHUNK_BYTES;
        if (chunk.length != size) revert Trees.WrongLength(chunk.length, size);
        if (4 * uint256(place) >= size) revert OutsideNode(place, size / 4);
        bytes32 found = Trees.chunkLeaf(chunk);
        if (found != self.node) revert Trees.WrongHash(found, self.node);
        uint32 bits = Trees.elementOf(chunk, place);
        bool won;
        if (tree == Tree.Trace) {
            (self.tracePlace, self.traceValue) = (uint8(place), bits);
            (cursor.phase, cursor.tree) = (Phase.Expand, Tree.Operators);
        } else {
            uint256 position = (uint256(cursor.index) << Trees.CHUNK_SHIFT) | place;
            uint256 count = tree == Tree.Tensor ? cursor.elements : cursor.terms;
            if (position >= count) {
                // Behind the last element every chunk is filled with zero bytes.
                if (bits == 0) revert PaddingGranted(position, count);
                won = true;
            } else if (tree == Tree.Tensor) {
                cursor.element = uint32(position);
                won = _contradictsTrace(self, cursor, bits);
                (cursor.phase, cursor.tree) =
                    cursor.terms == 1 ? (Phase.Prove, Tree.Tensor) : (Phase.Expand, Tree.Sums);
            } else {
                // The last partial sum is the element itself.
                won = position == count - 1 && bits != cursor.value;
                cursor.index = uint32(position);
                cursor.phase = Phase.Prove;
            }
            cursor.value = bits;
        }
        _endChoice(self, caseId, cursor, won);
    }

    /// @inheritdoc ICourt
    function chooseSegmentTree(uint256 caseId, bytes32 position_, Facts calldata facts, bytes calldata header)
        external
    {
        Case storage self = _cases[caseId];
        Cursor memory cursor = _begin(self, caseId, position_, Phase.Choose);
        _onlyParty(self.challenger);
        _verifyFacts(self, facts);
        Part part = self.part;
        bool atTop = part == Part.Trace
            ? cursor.tree == Tree.Trace && cursor.levels == Trees.depthOf(self.steps)
            : (part == Part.Threshold || part == Part.Separation) && cursor.tree == Tree.Operators
                && cursor.levels == Trees.depthOf(self.operators);
        if (!atTop || self.steps == 1) revert NoSegmentTree(part, cursor.tree);
        bool noisy = self.noisy;
        self.part = noisy ? Part.NoisyEnd : Part.End;
        self.claimed = noisy ? facts.noisyRoot : facts.endRoot;
        header.verify(facts.programRoot);
        _writeSection(self, header);
        self.node = _segmentRoot(self, 0);
        cursor.phase = Phase.Reveal;
        cursor.tree = Tree.Segment;
        cursor.levels = uint8(Trees.depthOf(self.steps));
        cursor.index = 0;
        cursor.step = 0;
        _endChoice(self, caseId, cursor, false);
    }

    /// @dev Goes to the node `place` among those just shown. True if it lies wholly behind the last leaf and is not the padding
    /// it must be.
    function _descend(
        Case storage self,
        Cursor memory cursor,
        uint32 place,
        bytes32 child,
        bytes32[] calldata proof
    ) private returns (bool won) {
        _onlyParty(self.challenger);
        Tree tree = cursor.tree;
        uint256 shown = cursor.shown;
        if (cursor.levels == 0 && tree != Tree.Operators) revert NotANode(tree);
        if (place >> shown != 0) revert OutsideNode(place, 1 << shown);
        Trees.verify(child, place, shown, proof, self.node);
        cursor.levels -= uint8(shown);
        cursor.index = (cursor.index << uint32(shown)) | place;
        cursor.phase = Phase.Reveal;
        self.node = child;
        uint256 leaves = self.leavesOf(cursor);
        uint256 firstLeaf = uint256(cursor.index) << cursor.levels;
        if (firstLeaf >= leaves) {
            if (child == Trees.paddingNode(cursor.levels)) revert PaddingGranted(firstLeaf, leaves);
            won = true;
        }
    }

    /// @dev Whether the claimant's own execution shows another value at the place that its trace is about.
    function _contradictsTrace(Case storage self, Cursor memory cursor, uint32 bits) private view returns (bool) {
        if (self.part != Part.Trace || bits == self.traceValue) return false;
        uint256 step = self.firstStep + cursor.step;
        return Draws.tracedOperator(self.drawSeed, step, self.tracePlace, self.operators) == cursor.operator
            && Draws.tracedElement(self.drawSeed, step, self.tracePlace, cursor.elements) == cursor.element;
    }

    /* THE LAST MOVE */

    /// @inheritdoc ICourt
    function prove(
        uint256 caseId,
        bytes32 position_,
        Facts calldata facts,
        bytes calldata header,
        OperatorEvidence calldata evidence
    ) external {
        Case storage self = _cases[caseId];
        Cursor memory cursor = _begin(self, caseId, position_, Phase.Prove);
        if (cursor.tree == Tree.NextState) revert NextStateInDispute(cursor.index);
        Question memory question = _question(self, cursor, facts, header);
        uint32 result = PROVER.execute(question, facts, header, evidence);
        emit Proven(caseId, cursor.value, result);
        self.stopClock(EXTENSION);
        _close(self, caseId, result != cursor.value);
    }

    /// @inheritdoc ICourt
    function proveNextState(
        uint256 caseId,
        bytes32 position_,
        Facts calldata facts,
        bytes calldata header,
        StateEvidence calldata evidence
    ) external {
        Case storage self = _cases[caseId];
        Cursor memory cursor = _begin(self, caseId, position_, Phase.Prove);
        if (cursor.tree != Tree.NextState) revert OperatorInDispute(cursor.operator);
        Question memory question = _question(self, cursor, facts, header);
        bytes32 root = PROVER.nextState(question, facts, header, evidence);
        emit NextStateProven(caseId, self.node, root);
        self.stopClock(EXTENSION);
        _close(self, caseId, root != self.node);
    }

    function _question(Case storage self, Cursor memory cursor, Facts calldata facts, bytes calldata header)
        private
        view
        returns (Question memory question)
    {
        _verifyFacts(self, facts);
        header.verify(facts.programRoot);
        question.role = self.role();
        question.cursor = cursor;
        question.steps = self.steps;
        // Outside the steps the step number reads 0.
        if (question.role & 1 == 0) question.firstStep = self.firstStep;
        question.operators = self.operators;
        question.operatorsRoot = self.operatorsRoot;
        question.segmentRoot = _segmentRoot(self, self.noisy ? facts.noisyRoot : facts.endRoot);
        question.outputsRoot = expansions[self.operatorsPlace(cursor)];
        if (cursor.terms > 1) question.sumsRoot = expansions[self.sumsPlace(cursor)];
    }

    /// @dev The segment tree's root; that of a single step is its end state.
    function _segmentRoot(Case storage self, bytes32 endRoot) private view returns (bytes32) {
        return self.steps == 1 ? endRoot : expansions[self.segmentPlace()];
    }

    function _verifyFacts(Case storage self, Facts calldata facts) private view {
        bytes32 found = keccak256(abi.encode(facts));
        if (found != self.factsHash) revert WrongFacts(found, self.factsHash);
    }

    /* CLOCKS */

    /// @inheritdoc ICourt
    function timeout(uint256 caseId) external {
        Case storage self = _cases[caseId];
        if (!self.isOpen()) revert CaseNotOpen(caseId);
        uint256 deadline = self.deadline(EXTENSION);
        if (block.timestamp <= deadline) revert Cases.ClockRunning(deadline, block.timestamp);
        bool challengerWon = !self.isChallengersTurn();
        emit TimedOut(caseId, challengerWon ? self.claimant : self.challenger);
        _close(self, caseId, challengerWon);
    }

    /// @dev Checks that a move is one of `phase`, and answers what it says.
    function _begin(Case storage self, uint256 caseId, bytes32 position_, Phase phase)
        private
        view
        returns (Cursor memory cursor)
    {
        cursor = Cases.unpack(self.cursor);
        // INVARIANT: a decided case takes no more moves.
        if (cursor.phase == Phase.None || cursor.phase == Phase.Closed) revert CaseNotOpen(caseId);
        bytes32 current = self.position(caseId);
        if (position_ != current) revert PositionMoved(position_, current);
        if (cursor.phase != phase) revert NotTheTurn(cursor.phase, phase);
    }

    function _onlyParty(address party) private view {
        if (msg.sender != party && !isDelegate[party][msg.sender]) revert NotTheParty(msg.sender, party);
    }

    /// @dev Stops the mover's clock (the phase before the move is still the stored one) and hands the turn over.
    function _end(Case storage self, Cursor memory cursor) private {
        self.stopClock(EXTENSION);
        self.cursor = Cases.pack(cursor);
    }

    function _endChoice(Case storage self, uint256 caseId, Cursor memory cursor, bool won) private {
        _end(self, cursor);
        emit Chosen(caseId, cursor, self.node, self.position(caseId));
        if (won) _close(self, caseId, true);
    }

    function _close(Case storage self, uint256 caseId, bool challengerWon) private {
        Cursor memory cursor = Cases.unpack(self.cursor);
        cursor.phase = Phase.Closed;
        self.cursor = Cases.pack(cursor);
        int256 overshoot = int256(uint256(self.challengerOvershoot)) - int256(uint256(self.claimantOvershoot));
        emit CaseClosed(caseId, self.claimId, challengerWon);
        CLAIMS.caseClosed(caseId, self.claimId, challengerWon, overshoot * int256(OVERSHOOT_PRICE));
    }

    /* PROGRAMS */

    /// @inheritdoc ICourt
    function refuteProgram(uint256 taskId, bytes calldata header, RefutationEvidence calldata evidence) external {
        header.verify(CLAIMS.programRootOf(taskId));
        // INVARIANT: a well-formed program has no evidence that gets past here.
        if (!REFUTER.isFaulty(header, evidence)) revert WellFormed(taskId);
        emit ProgramRefuted(taskId, msg.sender);
        CLAIMS.programRefuted(taskId, msg.sender);
    }

    /* VIEWS */

    /// @inheritdoc ICourt
    function caseOf(uint256 caseId) external view returns (Case memory, Cursor memory) {
        return (_cases[caseId], Cases.unpack(_cases[caseId].cursor));
    }

    /// @inheritdoc ICourt
    function positionOf(uint256 caseId) external view returns (bytes32) {
        return _cases[caseId].position(caseId);
    }

    /// @inheritdoc ICourt
    function deadlineOf(uint256 caseId) external view returns (uint256) {
        return _cases[caseId].deadline(EXTENSION);
    }
}
