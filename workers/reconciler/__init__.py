"""The reconciler: puts back onto the queue what is open, due and not there."""
