"""What an image set is, and how files' pixels and anybody's arrays become one."""
