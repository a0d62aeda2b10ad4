"""What a drawing is: its forms, how it is simplified, disturbed and drawn."""
