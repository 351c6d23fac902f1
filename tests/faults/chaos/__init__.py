"""Chaos: a load of requests while a seeded schedule kills, freezes and cuts; then a count from outside."""
