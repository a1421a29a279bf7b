"""What a real site runs: it dials the server, shows what is asked, and answers from its own file."""
