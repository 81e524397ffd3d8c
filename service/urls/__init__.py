"""The URLs of renditions and their signatures. Pure: no input and no output."""
