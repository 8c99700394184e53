"""Published tables as data, and what our runs say beside them."""
