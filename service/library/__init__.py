"""What the service does with images: ingest, documents, renditions, the list of images, takedowns, warming."""
