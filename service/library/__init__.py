"""What the service does with its images: ingest, renditions, takedowns, warming."""
