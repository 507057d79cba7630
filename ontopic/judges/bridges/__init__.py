"""Judges in other frameworks, and theirs here."""
