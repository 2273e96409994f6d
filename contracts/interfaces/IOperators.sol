// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

// What the court needs of contracts/libraries/Operators.sol (all internal library functions; this page goes when the library is there).
//
//   /// Reads only the head of a record. Reverts on a record too short.
//   function shapeOf(bytes calldata record) returns (uint8 outputType, uint256 elements, uint256 terms);   // terms = 1 unless a fold
//
//   /// Decodes all of it into memory. Reverts (custom error) on anything that is not exactly a record.
//   function decode(bytes calldata record) returns (Operator memory);
//     Operator { body, outputType, R, Q, extents[], p0, p1, Operand[] operands }, Operand { source, index, count, ... }
//
//   /// Where operand `number` is read for output element `element` and term `term` of the fold (0 if none).
//   /// `gathered` is the value of operand 1 (sign-extended) when body = gather and number = 0, else ignored.
//   /// opened = false: the value is `bits` (immediate, step, index, fill, invalid gather) and nothing has to be opened.
//   function operand(Operator memory, uint256 number, uint256 element, uint256 term, Context memory, int256 gathered)
//       returns (bool opened, uint32 bits, uint256 position);
//     Context { uint64 taskSeed; uint32 step; }    // step is global
//
//   /// One element of a body that is no fold, or the accumulator after term `term` given the one before it
//   /// (`previous` ignored at term 0, where the body's start value is used). values in the order of operands. Canonical bits.
//   function evaluate(Operator memory, uint32[4] memory values, uint32 previous, uint256 element, uint256 term, Context memory)
//       returns (uint32 bits);
//
//   function isFold(uint8 body) returns (bool);
//   function workOf(Operator memory) returns (uint256);
//
//   /// FORMAT 2.3 as far as one record shows it (never reverts, whatever the bytes): decodes exactly, body, types where they are
//   /// fixed by source (step, index, threshold), operand number, source allowed in `role`, operator index < own number, state
//   /// index < nState, data and constant index in range, threshold count = nState, product bounds, interval rule.
//   function isWellFormed(bytes memory record, uint8 role, uint256 number, uint32 nState, uint32 nData, uint32 nConstants) returns (bool);
//   /// Whether operand `number` may read a source of this type and element count (type demanded by the body; count equal).
//   function accepts(Operator memory, uint256 number, uint8 sourceType, uint256 sourceCount) returns (bool);
