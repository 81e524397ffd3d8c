"""Routes, request and response bodies, authentication, problem details and OpenAPI."""
