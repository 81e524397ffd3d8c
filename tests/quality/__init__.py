"""What `quality=auto` and the default qualities give, judged by SSIMULACRA2: `make quality`."""
