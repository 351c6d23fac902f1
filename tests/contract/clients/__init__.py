"""Clients that public generators make of both documents, and programs that a user writes over them."""
