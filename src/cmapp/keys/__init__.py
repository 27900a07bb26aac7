"""Keys and certificates: making them, keeping them, saying what they are; the administrator's side only."""
