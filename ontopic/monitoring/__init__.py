"""Windows of traffic, their pages, and alerts."""
