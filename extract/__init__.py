"""From recordings to features: data sets, audio, Moshi and Mimi, the build of a store.

Imports laughstore, never train. Nothing here loads torch before a module that needs it is imported:
`laughstore build --help` reads `extract.config` alone.
"""
