"""Chaos: a load of requests while a seeded schedule kills, freezes and cuts; then all is counted from outside."""
