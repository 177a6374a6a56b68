"""A folder of PNG files and a CSV to a SOURCE."""
