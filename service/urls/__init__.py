"""Pure: the URLs of renditions and their signatures."""
