"""The model of images: transforms, formats, geometry, documents, ladders, `<picture>`. Pure: no input and no output."""
