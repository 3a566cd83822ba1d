"""Ranks: how they meet, decide together and sum."""
