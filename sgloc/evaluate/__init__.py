"""What a trained model does: redraws, reorganizes, and is measured by it."""
