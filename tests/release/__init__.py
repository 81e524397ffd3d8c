"""Releases: builds the wheel, the source distribution and the npm package (`build`), and installs each into an empty place (`check`)."""
