// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

/// @notice A sibling on the way up a program tree: its hash and the work below it.
struct SumSibling {
    bytes32 hash;
    uint128 work;
}

/// @notice One chunk of a tensor and the siblings from it up to a root already on chain. The siblings may pass through several
/// trees (chunks, then tensors of a state, then steps of a segment): all of them use the same node.
struct Opening {
    bytes chunk;
    bytes32[] proof;
}

/// @notice An operator's record and its way up the program tree.
/// @param work The operator's work, as the tree has it.
struct RecordOpening {
    bytes record;
    uint128 work;
    SumSibling[] proof;
}

/// @notice Where tensors are opened: a root, and what lies between it and a tensor's own tree.
/// @param tensorIndex The bits of the way down that lie above the tensor's tree: which tensor, and above that which step.
/// @param depth Number of these bits.
struct Place {
    bytes32 root;
    uint256 tensorIndex;
    uint256 depth;
}

/// @title Trees
/// @notice The Merkle trees of contracts/FORMAT.md: plain trees, tensor chunks, program (sum) trees. All hashes are SHA-256.
/// @dev A call of the precompile that fails for want of gas reverts here: no result is ever derived from it.
library Trees {
    /// @notice Bytes of a chunk.
    uint256 internal constant CHUNK_BYTES = 1024;

    /// @notice Elements of a chunk, as a shift.
    uint256 internal constant CHUNK_SHIFT = 8;

    /// @notice A proof or a list of nodes does not have the length its tree demands.
    error WrongLength(uint256 given, uint256 expected);

    /// @notice A proof, a list of nodes or an opened text does not lead to the hash it is opened under.
    error WrongHash(bytes32 found, bytes32 expected);

    /* PLAIN TREES */

    /// @notice H(01 ‖ left ‖ right).
    function node(bytes32 left, bytes32 right) internal view returns (bytes32 hash) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore8(free, 1)
            mstore(add(free, 1), left)
            mstore(add(free, 33), right)
            if iszero(staticcall(gas(), 2, free, 65, 0, 32)) { revert(0, 0) }
            hash := mload(0)
        }
    }

    /// @notice Depth of a plain tree over `leaves` leaves: ceil(log2 leaves).
    function depthOf(uint256 leaves) internal pure returns (uint256 depth) {
        while (uint256(1) << depth < leaves) ++depth;
    }

    /// @notice The root that `proof` leads to from `leaf` at `index`.
    function rootFrom(bytes32 leaf, uint256 index, bytes32[] calldata proof) internal view returns (bytes32 root) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore8(free, 1)
            root := leaf
            let end := add(proof.offset, shl(5, proof.length))
            for { let at := proof.offset } lt(at, end) { at := add(at, 32) } {
                // The right child's place is free + 33, the left child's free + 1.
                let place := shl(5, and(index, 1))
                mstore(add(add(free, 1), place), root)
                mstore(sub(add(free, 33), place), calldataload(at))
                if iszero(staticcall(gas(), 2, free, 65, 0, 32)) { revert(0, 0) }
                root := mload(0)
                index := shr(1, index)
            }
        }
    }

    /// @notice Reverts unless `leaf` is number `index` under `root`, `depth` levels up.
    function verify(bytes32 leaf, uint256 index, uint256 depth, bytes32[] calldata proof, bytes32 root) internal view {
        if (proof.length != depth) revert WrongLength(proof.length, depth);
        bytes32 found = rootFrom(leaf, index, proof);
        if (found != root) revert WrongHash(found, root);
    }

    /// @notice The node above 2^n hashes given one after the other, `levels` = n levels below it.
    function nodeAbove(bytes calldata hashes, uint256 levels) internal view returns (bytes32 hash) {
        if (hashes.length != uint256(32) << levels) revert WrongLength(hashes.length, uint256(32) << levels);
        assembly ("memory-safe") {
            let free := mload(0x40)
            let list := add(free, 96)
            calldatacopy(list, hashes.offset, hashes.length)
            mstore8(free, 1)
            for { let size := hashes.length } gt(size, 32) { size := shr(1, size) } {
                for { let at := 0 } lt(at, size) { at := add(at, 64) } {
                    mcopyPair(add(free, 1), add(list, at))
                    if iszero(staticcall(gas(), 2, free, 65, add(list, shr(1, at)), 32)) { revert(0, 0) }
                }
            }
            hash := mload(list)

            function mcopyPair(to, from) {
                mstore(to, mload(from))
                mstore(add(to, 32), mload(add(from, 32)))
            }
        }
    }

    /// @notice The node `levels` above nothing but padding.
    function paddingNode(uint256 levels) internal view returns (bytes32 hash) {
        for (; levels != 0; --levels) hash = node(hash, hash);
    }

    /// @notice Root of the plain tree over `count` >= 1 leaves that are all equal to `leaf`.
    function rootOfEqual(bytes32 leaf, uint256 count) internal view returns (bytes32) {
        // Every level is some equal full nodes, at most one node over both leaves and padding, then padding.
        bytes32 mixed;
        bool hasMixed;
        bytes32 padding;
        while (count + (hasMixed ? 1 : 0) > 1) {
            if (count & 1 == 1) {
                mixed = node(leaf, hasMixed ? mixed : padding);
                hasMixed = true;
            } else if (hasMixed) {
                mixed = node(mixed, padding);
            }
            if (count > 1) leaf = node(leaf, leaf);
            count >>= 1;
            padding = node(padding, padding);
        }
        return hasMixed ? mixed : leaf;
    }

    /* TENSORS */

    /// @notice Number of chunks of a tensor of `elements` elements.
    function chunksOf(uint256 elements) internal pure returns (uint256) {
        return (elements + 255) >> CHUNK_SHIFT;
    }

    /// @notice Leaf of a chunk: H(00 ‖ content ‖ zero bytes up to 1024). Content of a whole chunk has 1024 bytes.
    function chunkLeaf(bytes calldata content) internal view returns (bytes32 hash) {
        if (content.length > CHUNK_BYTES) revert WrongLength(content.length, CHUNK_BYTES);
        bytes memory text = new bytes(1 + CHUNK_BYTES);
        assembly ("memory-safe") {
            calldatacopy(add(text, 33), content.offset, content.length)
            if iszero(staticcall(gas(), 2, add(text, 32), 1025, 0, 32)) { revert(0, 0) }
            hash := mload(0)
        }
    }

    /// @notice Root of a tensor of one element with these 32 bits.
    function scalarRoot(uint32 bits) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0), littleEndian(bits), new bytes(CHUNK_BYTES - 4)));
    }

    /// @notice Root of a tensor of `count` elements that are all zero.
    function zeroTensorRoot(uint256 count) internal view returns (bytes32) {
        return rootOfEqual(sha256(new bytes(1 + CHUNK_BYTES)), chunksOf(count));
    }

    /// @notice The 32 bits of element number `place` (below 256) of a chunk.
    function elementOf(bytes calldata chunk, uint256 place) internal pure returns (uint32) {
        return uint32(littleEndian(uint32(bytes4(chunk[4 * place:4 * place + 4]))));
    }

    /// @notice The four bytes of a word in the other order.
    function littleEndian(uint32 word) internal pure returns (uint32) {
        word = ((word & 0x00ff00ff) << 8) | ((word >> 8) & 0x00ff00ff);
        return (word << 16) | (word >> 16);
    }

    /// @notice The 32 bits of element `element` of a tensor of `elements` elements, opened under a root above it.
    function openElement(Opening calldata opening, uint256 element, uint256 elements, Place memory place)
        internal
        view
        returns (uint32)
    {
        if (opening.chunk.length != CHUNK_BYTES) revert WrongLength(opening.chunk.length, CHUNK_BYTES);
        uint256 depth = depthOf(chunksOf(elements));
        uint256 index = (element >> CHUNK_SHIFT) | (place.tensorIndex << depth);
        verify(chunkLeaf(opening.chunk), index, depth + place.depth, opening.proof, place.root);
        return elementOf(opening.chunk, element & 255);
    }

    /* PROGRAM TREES */

    /// @notice H(08 ‖ left hash ‖ left work ‖ right hash ‖ right work).
    function sumNode(bytes32 leftHash, uint128 leftWork, bytes32 rightHash, uint128 rightWork)
        internal
        view
        returns (bytes32 hash)
    {
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore8(free, 8)
            mstore(add(free, 1), leftHash)
            mstore(add(free, 33), shl(128, leftWork))
            mstore(add(free, 49), rightHash)
            mstore(add(free, 81), shl(128, rightWork))
            if iszero(staticcall(gas(), 2, free, 97, 0, 32)) { revert(0, 0) }
            hash := mload(0)
        }
    }

    /// @notice Reverts unless the record is number `index` of the `leaves` operators under `root`.
    /// The works on the way are only hashed here; that they do not add up is for a refutation of the program to say.
    function verifyRecord(RecordOpening calldata opening, uint256 index, uint256 leaves, bytes32 root) internal view {
        uint256 depth = depthOf(leaves);
        SumSibling[] calldata proof = opening.proof;
        if (proof.length != depth) revert WrongLength(proof.length, depth);
        bytes32 hash = sha256(abi.encodePacked(bytes1(0x03), opening.record));
        uint128 work = opening.work;
        for (uint256 level; level < depth; ++level) {
            SumSibling calldata sibling = proof[level];
            hash = (index >> level) & 1 == 0
                ? sumNode(hash, work, sibling.hash, sibling.work)
                : sumNode(sibling.hash, sibling.work, hash, work);
            unchecked {
                work += sibling.work;
            }
        }
        if (hash != root) revert WrongHash(hash, root);
    }
}
