"""The plan's lints: what is wrong with the settings of a run, found before a step is made. START with table.py."""
