"""The render processes as the server sees them."""
