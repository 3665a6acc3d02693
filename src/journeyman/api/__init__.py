"""The Python API: what scripts and notebooks use. `import journeyman` gives all of it; docs/python-api.md shows how.

creating.py and opening.py start; run.py is the object that users hold; results.py has one class for each stage's
result; rows.py turns files of rows into objects and data frames.
"""
