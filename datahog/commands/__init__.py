"""The commands that people use against a running system."""
