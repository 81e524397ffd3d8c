"""Images from where they already are: hosts and buckets, and which image each of their objects is."""
