"""The state folder and the files in it."""
