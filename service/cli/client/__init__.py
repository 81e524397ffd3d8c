"""The client of a Darkroom server, as the commands `push`, `url`, `info`, `rm` and `open` use it."""
