"""Building blocks for concurrent code: single flight, polling, retries, and bounded concurrency. They know nothing of images."""
