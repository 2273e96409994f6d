// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {IMarket, State, Task} from "./interfaces/IMarket.sol";
import {IMarketClaims} from "./interfaces/IMarketClaims.sol";
import {IVerification, Round, RoundState} from "./interfaces/IVerification.sol";
import {Headers} from "./libraries/Headers.sol";
import {Trees} from "./libraries/Trees.sol";
import {AnswerState, Answers} from "./Answers.sol";
import {Modules, Parameters} from "./Parameters.sol";
import {Class, Stakes} from "./Stakes.sol";

/// @notice Which chunk is demanded.
/// @param ofData Whether of a data tensor; else of a tensor of a checkpoint.
/// @param checkpoint Number of the checkpoint (0 for data).
/// @param tensor Number of the tensor.
/// @param chunk Number of the chunk in it.
struct Place {
    bool ofData;
    uint32 checkpoint;
    uint32 tensor;
    uint32 chunk;
}

/// @notice The entry of a program's table that says how long the tensor is (FORMAT 2.4).
/// @param kind Kind of a state table's entry (0 for data).
/// @param index Index of a state table's entry (0 for data).
/// @param elementType Type.
/// @param count Number of elements.
/// @param proof Siblings of the entry in its table.
struct Entry {
    uint8 kind;
    uint32 index;
    uint8 elementType;
    uint32 count;
    bytes32[] proof;
}

/// @notice A demand not answered yet.
/// @param index Place of the chunk under `root`.
/// @param depth Levels between the chunk and `root`.
struct Demand {
    uint256 taskId;
    address asker;
    uint40 deadline;
    uint8 depth;
    uint128 index;
    bytes32 root;
}

/// @title Demands
/// @notice Whoever needs a chunk of a task's files and cannot fetch it can demand it on chain. The solver answers with the chunk
/// and its proof and earns the price, or loses as if it had cheated.
contract Demands {
    /// @notice Demands one account can have open on one task.
    uint256 public constant AT_A_TIME = 2;

    Stakes private immutable STAKES;
    IMarket private immutable MARKET;
    IVerification private immutable VERIFICATION;
    Answers private immutable ANSWERS;
    IMarketClaims private immutable CLAIMS;
    /// @notice What a demand costs, in wei.
    uint256 public immutable PRICE;
    uint256 private immutable SECONDS;

    mapping(uint256 demandId => Demand) private _demands;
    /// @notice Open demands of a task: it does not settle while there are any.
    mapping(uint256 taskId => uint256 count) public pendingOf;
    mapping(uint256 taskId => mapping(address asker => uint256 count)) private _openOf;
    /// @notice Demands an account has made so far.
    mapping(address account => uint256 count) public demanded;

    event Demanded(
        uint256 indexed taskId, uint256 indexed demandId, address indexed asker, Place place, uint256 deadline
    );
    event Served(uint256 indexed taskId, uint256 indexed demandId, address indexed server, bytes chunk);
    event NotServed(uint256 indexed taskId, uint256 indexed demandId, address indexed asker);

    error WrongState(uint256 taskId, State state);
    error NotEntitled(address caller, uint256 roundId);
    error NotChallengeable(uint256 taskId);
    error TooMany(address asker, uint256 open);
    error WrongValue(uint256 given, uint256 expected);
    error NoSuchPlace(uint256 given, uint256 end);
    error NoSuchDemand(uint256 demandId);
    error TooLate(uint256 deadline, uint256 time);
    error TooEarly(uint256 deadline, uint256 time);

    constructor(Parameters memory parameters, Modules memory modules) {
        STAKES = Stakes(modules.stakes);
        MARKET = IMarket(modules.market);
        VERIFICATION = IVerification(modules.verification);
        ANSWERS = Answers(modules.answers);
        CLAIMS = IMarketClaims(modules.claims);
        PRICE = parameters.demandPrice;
        SECONDS = parameters.demandSeconds;
    }

    /// @notice Demands one chunk.
    /// @param roundId A round of the task that the caller was drawn for or joined; ignored for the submitter.
    /// @param header The program's header.
    /// @param entry The tensor's entry in the program's table.
    function demand(
        uint256 taskId,
        uint256 roundId,
        Place calldata place,
        bytes calldata header,
        Entry calldata entry
    ) external payable returns (uint256 demandId) {
        Task memory task = MARKET.taskOf(taskId);
        if (task.state != State.Verifying) revert WrongState(taskId, task.state);
        // INVARIANT: only whoever needs the file can make the solver pay for serving it.
        if (msg.sender != task.submitter && !_takesPart(taskId, roundId)) revert NotEntitled(msg.sender, roundId);
        // INVARIANT: demands cannot keep a task from settling for ever.
        if (!CLAIMS.isChallengeable(taskId)) revert NotChallengeable(taskId);
        if (_openOf[taskId][msg.sender] == AT_A_TIME) revert TooMany(msg.sender, AT_A_TIME);
        if (msg.value != PRICE) revert WrongValue(msg.value, PRICE);
        demandId = uint256(keccak256(abi.encode("demand", taskId, msg.sender, demanded[msg.sender]++)));
        Demand storage entry_ = _demands[demandId];
        (entry_.index, entry_.depth) = _locate(task, place, header, entry);
        entry_.root = place.ofData ? task.dataRoot : task.checkpointRoot;
        entry_.taskId = taskId;
        entry_.asker = msg.sender;
        entry_.deadline = uint40(block.timestamp + SECONDS);
        _openOf[taskId][msg.sender]++;
        pendingOf[taskId]++;
        STAKES.enter{value: msg.value}(Class.Demand, demandId);
        emit Demanded(taskId, demandId, msg.sender, place, entry_.deadline);
    }

    /// @notice Serves a demanded chunk. The solver earns the price, whoever calls.
    /// @param chunk The 1024 bytes.
    /// @param proof Siblings from the chunk up to the data root or the checkpoint root.
    function serve(uint256 demandId, bytes calldata chunk, bytes32[] calldata proof) external {
        Demand memory open = _close(demandId);
        // INVARIANT: at any moment a demand can either be served or be called unserved.
        if (block.timestamp > open.deadline) revert TooLate(open.deadline, block.timestamp);
        if (chunk.length != Trees.CHUNK_BYTES) revert NoSuchPlace(chunk.length, Trees.CHUNK_BYTES);
        Trees.verify(Trees.chunkLeaf(chunk), open.index, open.depth, proof, open.root);
        STAKES.move(Class.Demand, demandId, Class.Credit, uint160(MARKET.termsOf(open.taskId).solver), PRICE);
        emit Served(open.taskId, demandId, msg.sender, chunk);
    }

    /// @notice A demand was not served in time: the task fails. Anyone may call.
    function notServed(uint256 demandId) external {
        Demand memory open = _close(demandId);
        if (block.timestamp <= open.deadline) revert TooEarly(open.deadline, block.timestamp);
        STAKES.move(Class.Demand, demandId, Class.Credit, uint160(open.asker), PRICE);
        emit NotServed(open.taskId, demandId, open.asker);
        if (MARKET.stateOf(open.taskId) == State.Verifying) MARKET.failed(open.taskId, open.asker);
    }

    function _close(uint256 demandId) private returns (Demand memory open) {
        open = _demands[demandId];
        // INVARIANT: a demand is closed once.
        if (open.asker == address(0)) revert NoSuchDemand(demandId);
        delete _demands[demandId];
        pendingOf[open.taskId]--;
        _openOf[open.taskId][open.asker]--;
    }

    function _takesPart(uint256 taskId, uint256 roundId) private view returns (bool) {
        Round memory round = VERIFICATION.roundOf(roundId);
        if (round.taskId != taskId || round.state == RoundState.None || round.state == RoundState.Void) return false;
        return round.verifier == msg.sender || ANSWERS.answerOf(roundId, msg.sender).state != AnswerState.None;
    }

    /// @dev Where the demanded chunk lies. Reverts if there is no such chunk: what does not exist cannot be served.
    function _locate(Task memory task, Place calldata place, bytes calldata header, Entry calldata entry)
        private
        view
        returns (uint128 index, uint8 depth)
    {
        Headers.verify(header, task.programRoot);
        uint256 tensors = place.ofData ? Headers.dataTensors(header) : Headers.states(header);
        _below(place.tensor, tensors);
        uint256 tensorDepth = Trees.depthOf(tensors);
        Trees.verify(
            place.ofData
                ? sha256(abi.encodePacked(bytes1(0x09), entry.elementType, entry.count))
                : sha256(abi.encodePacked(bytes1(0x04), entry.kind, entry.index, entry.elementType, entry.count)),
            place.tensor,
            tensorDepth,
            entry.proof,
            place.ofData ? Headers.dataTableRoot(header) : Headers.sectionAt(header, 0).tableRoot
        );
        uint256 chunks = Trees.chunksOf(entry.count);
        _below(place.chunk, chunks);
        uint256 chunkDepth = Trees.depthOf(chunks);
        uint256 position = uint256(place.chunk) | (uint256(place.tensor) << chunkDepth);
        uint256 levels = chunkDepth + tensorDepth;
        if (!place.ofData) {
            _below(place.checkpoint, uint256(task.segments) + 1);
            position |= uint256(place.checkpoint) << levels;
            levels += Trees.depthOf(uint256(task.segments) + 1);
        }
        return (uint128(position), uint8(levels));
    }

    function _below(uint256 given, uint256 end) private pure {
        if (given >= end) revert NoSuchPlace(given, end);
    }

    /// @notice A demand that is still open.
    function demandOf(uint256 demandId) external view returns (Demand memory) {
        return _demands[demandId];
    }
}
