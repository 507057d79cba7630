"""Honest numbers."""
