"""Real caches in front of a server, each on a free port of loopback with its files in a folder of the test, stopped by process id."""
