// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

/// @notice What a program's header says of one section.
struct SectionHeader {
    uint32 operators;
    bytes32 root;
    uint128 work;
    bytes32 tableRoot;
}

/// @title Headers
/// @notice Reads fields of a program's header (contracts/FORMAT.md, section 2.4) where they lie in calldata.
library Headers {
    uint256 internal constant FIXED_BYTES = 81;
    uint256 internal constant SECTION_BYTES = 85;

    /// @notice A text is not the header of the program it is shown for.
    error WrongHeader(bytes32 found, bytes32 programRoot);

    /// @notice The program has no section for this role.
    error NoSection(uint8 role);

    /// @notice The program's root: the hash of its header.
    function rootOf(bytes calldata header) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x02), header));
    }

    /// @notice Reverts unless `header` hashes to `programRoot`.
    function verify(bytes calldata header, bytes32 programRoot) internal pure {
        bytes32 found = rootOf(header);
        if (found != programRoot) revert WrongHeader(found, programRoot);
    }

    /// @notice Number of tensors of the state.
    function states(bytes calldata header) internal pure returns (uint32) {
        return uint32(bytes4(header[4:8]));
    }

    /// @notice Number of data tensors.
    function dataTensors(bytes calldata header) internal pure returns (uint32) {
        return uint32(bytes4(header[8:12]));
    }

    /// @notice Root of the table of the data tensors' types and counts.
    function dataTableRoot(bytes calldata header) internal pure returns (bytes32) {
        return bytes32(header[12:44]);
    }

    /// @notice Number of constants.
    function constants(bytes calldata header) internal pure returns (uint32) {
        return uint32(bytes4(header[44:48]));
    }

    /// @notice Root over the constants.
    function constantRoot(bytes calldata header) internal pure returns (bytes32) {
        return bytes32(header[48:80]);
    }

    /// @notice Number of sections.
    function sections(bytes calldata header) internal pure returns (uint256) {
        return uint8(header[80]);
    }

    /// @notice Role of the section at `place`.
    function roleAt(bytes calldata header, uint256 place) internal pure returns (uint8) {
        return uint8(header[FIXED_BYTES + SECTION_BYTES * place]);
    }

    /// @notice The section at `place`.
    function sectionAt(bytes calldata header, uint256 place) internal pure returns (SectionHeader memory section_) {
        bytes calldata text = header[FIXED_BYTES + SECTION_BYTES * place:];
        section_.operators = uint32(bytes4(text[1:5]));
        section_.root = bytes32(text[5:37]);
        section_.work = uint128(bytes16(text[37:53]));
        section_.tableRoot = bytes32(text[53:85]);
    }

    /// @notice The section of a role. Reverts if there is none.
    function section(bytes calldata header, uint8 role) internal pure returns (SectionHeader memory) {
        uint256 count = sections(header);
        for (uint256 place; place < count; ++place) {
            if (roleAt(header, place) == role) return sectionAt(header, place);
        }
        revert NoSection(role);
    }
}
