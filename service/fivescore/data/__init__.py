"""Rows of every format, in and out: files, folders with splits, and data sets on the hub.

Imports nothing of the other rooms, and only what the base installation has; Parquet files and the
hub need ``pyarrow`` and ``datasets``, which are imported when they are needed.
"""
