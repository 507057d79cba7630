"""Stored records of a served model."""
