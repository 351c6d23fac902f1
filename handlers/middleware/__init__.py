"""ASGI middleware: each call passes through it before it reaches its handler."""
