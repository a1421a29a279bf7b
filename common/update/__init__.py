"""The update, the unit on the wire: which weights it is of, how it is encoded, how updates become a mean."""
