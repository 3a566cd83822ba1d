"""Find what was altered: every file of a store against its hashes, each fault with its place."""
