"""The render processes, as the server sees them: the pool, its processes, and the messages to them."""
