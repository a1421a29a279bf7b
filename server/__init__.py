"""What coordinates the clients: sampling, strategies, the round loop, evaluation."""
