"""Tests of programs: records, lowering, sections."""
