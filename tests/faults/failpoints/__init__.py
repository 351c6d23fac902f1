"""Failpoints: for each, what makes a process get there, and what must have become of it once it is started again."""
