"""From images to features.

embed     embeds the images of a source that have no features yet
encoding  asks encoders about rows: reads and decodes each image once
output    which files of FEATURES_DIR are wanted, what is known, writing them
"""
