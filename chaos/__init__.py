"""Random faults against real managers and real guests, and an independent judge of what came of it."""
