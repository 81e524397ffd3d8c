"""What the environment configures: sections of settings, how they are read, and the help for each variable."""
