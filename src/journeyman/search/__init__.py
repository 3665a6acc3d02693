"""Finds a training recipe: tries settings within a budget of time, scores them through the engine that serves, and
compares the best with the run's own on validation rows. The held-out test set is never opened.

space.py says which settings exist, halving.py how many are tried on how many rows, choosing.py who goes on and whether
one is better than the default; all three are pure. ledger.py keeps what was tried, searching.py does the work.
"""
