"""Scores along time against events: segments, alarms, and how right they are. numpy and scipy."""
