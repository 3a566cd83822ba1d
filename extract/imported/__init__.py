"""Features that earlier scripts wrote, as a store: `.pt` and `.npy` files in, units out.

Nothing in these files is trusted: no pickled code runs, and what a file says of its size is held
against the bytes it has before memory is taken.
"""
