"""Arithmetic at C speed on plain arrays; this package knows nothing of federated learning.

A kernel runs on one core and holds no interpreter lock: parallelism comes from running several phones at once.
"""
