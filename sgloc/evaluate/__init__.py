"""Using and measuring a trained model: redrawing, reorganization, evaluation."""
