"""Carries out what an "iterate" verdict advises, within a budget, and stops when the gain does.

changes.py says which advice is a change of settings, and when one is better on the validation rows; loop.py decides
what to do next, given the work as a protocol (protocol.py); working.py does the work with trials and the pipeline;
ledger.py keeps what was tried, and telling.py puts it in lines. Only the pipeline's evaluation opens the held-out test
set, and each look is counted there.
"""
