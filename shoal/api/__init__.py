"""What `import shoal` offers: runs, scenarios and their results in Python."""
