"""A run as seen from other processes: what it reports, and how it is started, watched and stopped.

Prints nothing, so that the command line, a Python program or a web page can use it.
"""
