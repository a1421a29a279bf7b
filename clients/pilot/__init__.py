"""What a real site runs: connects to the server, shows its requests, and answers from the site's own file."""
