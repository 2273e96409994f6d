"""The arithmetic `binary32-1`: scalar operations, folds, transcendental functions, random numbers, data order."""
