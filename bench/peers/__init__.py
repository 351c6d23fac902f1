"""What Datahog is measured against, each as its own experts would write it."""
