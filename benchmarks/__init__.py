"""Benchmarks: one script a claim, each with its limit and its rivals measured in the same run.

    uv run --group bench python -m benchmarks    # all of them, into benchmarks/results/*.json
    uv run python -m benchmarks.table            # tables and plots, made from that JSON

No part of the installed package.
"""
