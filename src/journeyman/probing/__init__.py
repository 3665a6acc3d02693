"""START HERE. Should you tune at all? `journeyman plan --probe` measures it, on validation rows only.

recommending.py  what the figures advise: prompt, tune, more data, stop, look at the checks, or that they cannot tell
record.py        everything that was found, as it is written to disk
copying.py       the answer of the most similar training task, copied: what no model at all achieves
costs.py         which parts of the training rows fit into the budget, and what the probe takes
measuring.py     the arms and the learning curve, through trials/
page.py          the page for people

The held-out test rows are never opened: what is chosen by a probe cannot make the evaluation's figures look better.
"""
