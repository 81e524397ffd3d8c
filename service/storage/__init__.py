"""The object store: on disk, in memory or in a bucket of S3."""
