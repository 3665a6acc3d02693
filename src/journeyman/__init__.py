"""journeyman: a small local model that takes over where the evidence says it may."""

__version__ = "0.6.0"
