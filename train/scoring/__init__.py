"""Scores of all rows of a split, and exact metrics of them."""
