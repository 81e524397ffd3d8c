"""Images pulled from remote sources: fetched over HTTP, ingested, and looked up again by their URL."""
