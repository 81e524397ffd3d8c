"""Operation: health, signing keys, regions, CDN, metrics, logs."""
