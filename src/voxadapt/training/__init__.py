"""The training room: batches, losses, schedule and the one loop."""
