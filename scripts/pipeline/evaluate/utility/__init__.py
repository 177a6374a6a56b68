"""What classifiers learn from synthetic images.

utility           classifiers trained on real and synthetic images, tested on real ones
utility_meanings  what its metrics tell
classifier        what is asked of a classifier that learns from a split
probe             logistic regressions on features
backbone          classifiers fine-tuned on the images of a setting: networks of timm
training          fine-tunes a network with accelerate; resumes
decoded           images decoded once, at the size that a network takes
"""
