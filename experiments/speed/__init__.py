"""How fast an update is, in all the ways to do it, and what bounds it."""
