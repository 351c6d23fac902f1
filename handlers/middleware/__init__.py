"""The middleware: every call passes through it on its way to its handler."""
