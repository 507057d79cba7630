"""The automatic loop: windows close, and what they show is acted on."""
