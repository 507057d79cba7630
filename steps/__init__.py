"""Thin ZenML steps. What a step calls is imported in it: a run that takes most of them from the cache loads a step's
signature alone, and a step loads what it needs."""
