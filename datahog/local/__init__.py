"""The whole system on one machine: its engines, processes, ports and secrets."""
