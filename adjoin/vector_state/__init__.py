"""State next to the compute that uses it."""
