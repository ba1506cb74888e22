"""What Headgate promises, seen from outside: the command, a warehouse, and a destination that misbehaves."""
