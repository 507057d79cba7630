"""Labelled questions and records, and people's labels."""
