"""Number formats of the arrays, and quantisation to them."""
