"""Stores behind URLs: reading them, and sending them there."""
