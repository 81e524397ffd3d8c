"""Other image servers as sides of the bench, each with the settings that its documentation recommends for production.

They come from ordinary packages of pinned versions, which `make peers PEERS=folder` installs. `make bench PEERS=folder` measures them
beside Darkroom.
"""
