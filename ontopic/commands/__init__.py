"""The command line's commands on the domain, a file a group."""
