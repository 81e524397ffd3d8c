"""The fuzzer of the whole way: bad images and bad requests against a real server, and good ones in between. `make fuzz` runs it."""
