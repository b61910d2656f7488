"""What a method loses when views are missing, and how to impute them."""
