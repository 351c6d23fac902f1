"""Commands that people use against a running system."""
