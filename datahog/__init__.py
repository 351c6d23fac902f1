"""Datahog's programs: settings, the composition root, the command line, and the stack on one machine."""
