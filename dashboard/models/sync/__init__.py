"""What the sync stores about itself."""
