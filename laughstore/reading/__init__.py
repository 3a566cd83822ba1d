"""Frames of a store as rows of a matrix: mapped, or in a window of the same shape."""
