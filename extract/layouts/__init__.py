"""How data sets lie on disk: one module a layout, each giving `DatasetRecording`s.

`extract.datasets` chooses among them. Looking at a data set reads names, tables and manifests; what
belongs to one recording is read when it is asked for.
"""
