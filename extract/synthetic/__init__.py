"""What demo and tests are made of: a corpus without people, small random checkpoints."""
