"""Rates with their intervals, the judge's error taken out, paired comparisons, agreement."""
