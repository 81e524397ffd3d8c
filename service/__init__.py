"""The origin: takes images in, makes renditions, and says in its headers how long each answer may be kept."""
