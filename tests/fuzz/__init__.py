"""All readers of the product, and files that are meant to break them."""
