"""Trials: adapters trained with other settings or on other rows, scored on rows that are not held out.

The held-out test set is never opened here: what a trial shows is evidence about settings, not about a file that ships.
"""
