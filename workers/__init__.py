"""The work behind the APIs: fetch, submit, deliver, reconcile, and the RQ worker that runs these steps."""
