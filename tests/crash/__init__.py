"""Real crashes: the command as a process, killed, frozen and cut off, against a destination that remembers."""
