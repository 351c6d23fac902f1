"""The concurrent RQ worker: leases, threads, and the scripts that Redis runs."""
