"""The outside world, each call with its timeout."""
