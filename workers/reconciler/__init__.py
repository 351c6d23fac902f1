"""The reconciler: puts back on the queue every step that is due and missing."""
