"""A run seen from outside its process: what it tells while it works, and how it is started, watched and stopped.

Prints nothing; the command line, a Python program or a web page can use it.
"""
