"""Judge each image of a SOURCE with a vision-language model, report the answers and apply them."""
