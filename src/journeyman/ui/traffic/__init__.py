"""The traffic of a run: what the recorder wrote and what was made of it, read as it grows in bounded memory."""
