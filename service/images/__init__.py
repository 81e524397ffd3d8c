"""Pure: what a transform, a format, an image document and a `<picture>` are. No input and no output."""
