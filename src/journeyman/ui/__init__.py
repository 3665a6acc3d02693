"""`journeyman ui`: a page over run folders.

It shows what is in the files and computes nothing of its own. `resources/` has one file for each kind of data that the
page asks for, and `static/views/` one for each view; events.py tells the page which of them have changed.
"""
