"""Local training: one client at a time, many in a stack, with DP-SGD, or alone for comparison."""
