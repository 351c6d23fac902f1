"""Datahog's programs: the settings, the command line, the composition root and the stack on one machine."""
