"""Everything that imports pyvips. It runs in render processes; the server talks to them through `pool` and `messages`."""
