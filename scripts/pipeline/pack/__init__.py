"""A folder of images and a CSV to a SOURCE."""
