"""What a trained network does with drawings; knows no run and no checkpoint (METHOD 9)."""
