"""The arithmetic `binary32-1`: reference operations, folds, transcendental functions, random numbers, data permutation."""
