"""Judges: anything that turns records into verdicts."""
