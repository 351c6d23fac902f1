"""Bootstrap: builds the parts of each process from its settings."""
