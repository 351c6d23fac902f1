"""Failpoints: a scene for each makes a process reach it, and checks the outcome after the restart."""
