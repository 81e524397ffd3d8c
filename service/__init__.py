"""The origin: it takes images in, renders them, and says in its headers how long each response may be stored."""
