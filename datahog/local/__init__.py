"""The whole system on one machine: its engines, its processes, its secrets."""
