"""The experiments and the command line; no part of the API promise.

Needs the extra: ``pip install "flatmin[experiments]"``.
"""
