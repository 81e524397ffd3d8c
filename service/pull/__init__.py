"""Images from remote sources."""
