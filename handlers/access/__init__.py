"""Access: who may call, how often, and with how much open."""
