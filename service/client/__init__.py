"""The client's side of the command line: speaks HTTP to any Darkroom, near or far, and knows of a server what its API says."""
