"""What shows ragkit: a tour in the terminal over a small town's documents in fifteen languages."""
