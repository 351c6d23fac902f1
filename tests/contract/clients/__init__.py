"""Clients that public generators make from both documents, and programs that use them."""
